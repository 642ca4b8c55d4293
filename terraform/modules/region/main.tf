# A trust domain for the workloads of one region, with who may issue and register in it, and where its callers go when
# the region fails.

terraform {
  required_version = ">= 1.11"
  required_providers {
    entente = {
      source = "ententehq/entente"
    }
  }
}

variable "trust_domain" {
  description = "The trust domain."
  type        = string
}

variable "region" {
  description = "The region of its callers."
  type        = string
}

variable "failover" {
  description = "The regions that callers fail over to, the next one first."
  type        = list(string)
  default     = []
}

variable "issuers" {
  description = "SPIFFE IDs that issue SVIDs in the trust domain, by the path below which they do."
  type        = map(string)
  default     = {}
}

variable "deletion_protection" {
  description = "Whether the cluster refuses to delete the trust domain."
  type        = bool
  default     = true
}

variable "services" {
  description = "The services of the region: who registers their instances, and the path of the instances' SPIFFE IDs."
  type = map(object({
    registrar   = string
    path_prefix = string
  }))
  default = {}
}

resource "entente_trust_domain" "this" {
  trust_domain        = var.trust_domain
  deletion_protection = var.deletion_protection
}

resource "entente_access_grant" "issuer" {
  for_each     = var.issuers
  role         = "issuer"
  spiffe_id    = each.value
  trust_domain = entente_trust_domain.this.trust_domain
  path_prefix  = each.key
}

resource "entente_access_grant" "registrar" {
  for_each     = var.services
  role         = "discovery"
  spiffe_id    = each.value.registrar
  trust_domain = entente_trust_domain.this.trust_domain
  path_prefix  = each.value.path_prefix
  services     = [each.key]
}

resource "entente_routing_rule" "service" {
  for_each = length(var.failover) > 0 ? var.services : {}
  service  = each.key
  failover = [{ from = var.region, to = var.failover }]
}
