variable "prefix" {
  description = "Begins every name; the stack, the table and the schedule group are called so."
  type        = string
  default     = "devbox"
}

variable "vpc_cidr" {
  description = "Addresses of the network of the boxes, /16 to /24."
  type        = string
  default     = "10.219.0.0/16"
}

variable "zone_count" {
  description = "Zones to make subnets in, 1 to 6; all that the region has where it is null."
  type        = number
  default     = null
}

variable "private_subnets" {
  description = "Also make subnets without a way to the internet, with endpoints for Session Manager."
  type        = bool
  default     = false
}

variable "idle_minutes" {
  description = "A session without traffic ends after so many minutes."
  type        = number
  default     = 60
}

variable "max_minutes" {
  description = "A session ends after so many minutes, whatever happens."
  type        = number
  default     = 1440
}

variable "run_as_user" {
  description = "User that shells run as; the agent's own where it is empty."
  type        = string
  default     = ""
}

variable "mux" {
  description = "Join shells of the session document to a multiplexer: none, tmux or zellij."
  type        = string
  default     = "none"
}

variable "encrypt_sessions" {
  description = "Encrypt sessions with the key of this stack; needs customer_key."
  type        = bool
  default     = false
}

variable "log_group" {
  description = "CloudWatch log group of shell sessions; none where it is empty."
  type        = string
  default     = ""
}

variable "customer_key" {
  description = "Make a KMS key for disks, snapshots, rows and sessions."
  type        = bool
  default     = false
}

variable "keep_deleted_days" {
  description = "Deleted snapshots and images stay in the Recycle Bin for so many days."
  type        = number
  default     = 7
}

variable "always_on" {
  description = "Run the reconciler as a Lambda function too."
  type        = bool
  default     = false
}

variable "code_bucket" {
  description = "S3 bucket of the function's code, where always_on is true."
  type        = string
  default     = "not-given"
}

variable "code_key" {
  description = "Key of the function's code in code_bucket."
  type        = string
  default     = "not-given"
}

variable "reserved_concurrency" {
  description = "How many calls of the function run at once; 0 for no bound."
  type        = number
  default     = 2
}

variable "alarm_topic" {
  description = "ARN of an SNS topic that hears of a failing function; none where it is empty."
  type        = string
  default     = ""
}

variable "tags" {
  description = "Further tags of the stack and of what it makes."
  type        = map(string)
  default     = {}
}
