# Not applied here, for want of an account: parsed and asserted by the tests, and kept as `terraform fmt` would have it.
terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.60, < 7.0"
    }
  }
}
