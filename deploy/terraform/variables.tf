# Not applied here: parsed and asserted by the tests.
variable "vpc_id" {
  type        = string
  description = "The network everything lies in."
}

variable "public_subnets" {
  type        = list(string)
  description = "Subnets of the balancer, in at least two zones."

  validation {
    condition     = length(var.public_subnets) >= 2
    error_message = "The balancer needs subnets in two zones."
  }
}

variable "private_subnets" {
  type        = list(string)
  description = "Subnets of the servers, in at least two zones."
}

variable "certificate_arn" {
  type        = string
  description = "The certificate of api.resonantgenesis.xyz."
}

variable "ami_id" {
  type        = string
  description = "An image with Docker and the AWS command line."
}

variable "instance_type" {
  type        = string
  description = "Two cores and four GiB take the api's limits of docs/capacity.md."
  default     = "c7i.large"
}

variable "image" {
  type        = string
  description = "The service's image."
  default     = "resonantgenesis/service:0.1.0"
}

variable "secret_arn" {
  type        = string
  description = "A secret of Secrets Manager whose text is an env file: DATABASE_URL and the other variables of docs/deploy.md."
}

variable "settings_parameter" {
  type        = string
  description = "The name of the SSM parameter that holds resonant.toml."
  default     = "/resonant/resonant.toml"
}

variable "logs_bucket" {
  type        = string
  description = "The bucket of the balancer's access logs."
}
