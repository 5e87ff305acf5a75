# Not applied here: parsed and asserted by the tests.
resource "aws_security_group" "api" {
  name_prefix = "resonant-api-"
  description = "The api servers: port 8000 from the balancer"
  vpc_id      = var.vpc_id

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  security_group_id            = aws_security_group.api.id
  referenced_security_group_id = aws_security_group.alb.id
  ip_protocol                  = "tcp"
  from_port                    = 8000
  to_port                      = 8000
}

resource "aws_vpc_security_group_egress_rule" "api" {
  security_group_id = aws_security_group.api.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_iam_role" "api" {
  name_prefix = "resonant-api-"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

data "aws_caller_identity" "current" {}

data "aws_region" "current" {}

resource "aws_iam_role_policy" "api" {
  name = "read-its-settings"
  role = aws_iam_role.api.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = var.secret_arn
      },
      {
        Effect   = "Allow"
        Action   = "ssm:GetParameter"
        Resource = "arn:aws:ssm:${data.aws_region.current.name}:${data.aws_caller_identity.current.account_id}:parameter${var.settings_parameter}"
      },
    ]
  })
}

resource "aws_iam_instance_profile" "api" {
  name_prefix = "resonant-api-"
  role        = aws_iam_role.api.name
}

resource "aws_launch_template" "api" {
  name_prefix            = "resonant-api-"
  image_id               = var.ami_id
  instance_type          = var.instance_type
  update_default_version = true
  vpc_security_group_ids = [aws_security_group.api.id]

  iam_instance_profile {
    arn = aws_iam_instance_profile.api.arn
  }

  # Tokens for the metadata, and none for containers.
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  user_data = base64encode(templatefile("${path.module}/user_data.sh.tftpl", {
    image              = var.image
    secret_arn         = var.secret_arn
    settings_parameter = var.settings_parameter
  }))
}

resource "aws_autoscaling_group" "api" {
  name                = "resonant-api-asg"
  min_size            = 3
  max_size            = 20
  vpc_zone_identifier = var.private_subnets
  target_group_arns   = [aws_lb_target_group.api.arn]

  # The machine's own health. With ELB a database that is away would have all instances replaced.
  health_check_type         = "EC2"
  health_check_grace_period = 120
  default_instance_warmup   = 60
  wait_for_capacity_timeout = "10m"

  launch_template {
    id      = aws_launch_template.api.id
    version = aws_launch_template.api.latest_version
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 125
    }
  }

  tag {
    key                 = "Name"
    value               = "resonant-api"
    propagate_at_launch = true
  }

  lifecycle {
    # The policy's business.
    ignore_changes = [desired_capacity]
  }
}

# The guide's ScaleOutCooldown of 60 s is the warm-up here, and its ScaleInCooldown of 300 s is what target tracking of an
# Auto Scaling group does by itself (15 minutes below the target): its API takes neither name.
resource "aws_autoscaling_policy" "cpu" {
  name                      = "scale-on-cpu"
  autoscaling_group_name    = aws_autoscaling_group.api.name
  policy_type               = "TargetTrackingScaling"
  estimated_instance_warmup = 60

  target_tracking_configuration {
    target_value = 70

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}
