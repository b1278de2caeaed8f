"""One HTTP endpoint for every AWS API: ours (SSM, EC2, KMS, Instance Connect) first, moto for the rest."""
