# A thin door to the same template: what is deployed is iac/devbox.yaml, by CloudFormation, whoever calls it.
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

data "aws_availability_zones" "here" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  template = file("${path.module}/../devbox.yaml")
  zones    = coalesce(var.zone_count, min(length(data.aws_availability_zones.here.names), 6))

  # Sixteen blocks of the network: the first eight are public, the last eight private.
  subnets = [for n in range(6) : cidrsubnet(var.vpc_cidr, 4, n)]
  private = [for n in range(6) : cidrsubnet(var.vpc_cidr, 4, n + 8)]
}

resource "aws_cloudformation_stack" "devbox" {
  name          = var.prefix
  template_body = local.template
  capabilities  = ["CAPABILITY_NAMED_IAM"]
  tags          = merge(var.tags, { "devbox:managed" = var.prefix })

  parameters = {
    Prefix              = var.prefix
    VpcCidr             = var.vpc_cidr
    SubnetCidrs         = join(",", local.subnets)
    PrivateSubnetCidrs  = join(",", local.private)
    ZoneNames           = join(",", slice(data.aws_availability_zones.here.names, 0, local.zones))
    ZoneCount           = local.zones
    PrivateSubnets      = var.private_subnets
    IdleMinutes         = var.idle_minutes
    MaxMinutes          = var.max_minutes
    RunAsUser           = var.run_as_user
    Mux                 = var.mux
    EncryptSessions     = var.encrypt_sessions
    LogGroup            = var.log_group
    CustomerKey         = var.customer_key
    KeepDeletedDays     = var.keep_deleted_days
    AlwaysOn            = var.always_on
    CodeBucket          = var.code_bucket
    CodeKey             = var.code_key
    ReservedConcurrency = var.reserved_concurrency
    AlarmTopic          = var.alarm_topic
  }
}
