provider "aws" {
  region = "eu-central-1"
}

module "devbox" {
  source   = "../.."
  prefix   = "devbox"
  vpc_cidr = "10.219.0.0/16"
}

output "user_policy_arns" {
  value = module.devbox.user_policy_arns
}
