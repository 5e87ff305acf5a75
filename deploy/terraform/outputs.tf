# Not applied here: parsed and asserted by the tests.
output "address" {
  description = "What api.resonantgenesis.xyz should point to."
  value       = aws_lb.resonant.dns_name
}

output "target_group" {
  description = "For a policy on requests per target, and for alarms."
  value       = aws_lb_target_group.api.arn_suffix
}
