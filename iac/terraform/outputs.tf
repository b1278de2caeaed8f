output "stack" {
  description = "Everything that the template puts out, by name: VpcId, SubnetIds, SecurityGroupId, InstanceProfileArn, TableName, UserPolicyArn, …"
  value       = aws_cloudformation_stack.devbox.outputs
}

output "user_policy_arns" {
  description = "Attach both to people."
  value = [
    aws_cloudformation_stack.devbox.outputs["ConnectPolicyArn"],
    aws_cloudformation_stack.devbox.outputs["UserPolicyArn"],
  ]
}
