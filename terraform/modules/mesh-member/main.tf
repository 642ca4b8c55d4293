# The relationships of one cluster with the others of a mesh. It is called once for each cluster.

terraform {
  required_version = ">= 1.11"
  required_providers {
    entente = {
      source = "ententehq/entente"
    }
  }
}

variable "trust_domain" {
  description = "The home trust domain of this cluster, which is left out of its peers."
  type        = string
}

variable "clusters" {
  description = "All clusters of the mesh by their home trust domains: the URLs of their bundle endpoints, and the SPIFFE bundle documents to start from."
  type = map(object({
    url    = string
    bundle = string
  }))
}

locals {
  peers = { for domain, cluster in var.clusters : domain => cluster if domain != var.trust_domain }
}

resource "entente_federation_relationship" "peer" {
  for_each           = local.peers
  trust_domain       = each.key
  url                = each.value.url
  profile            = "https_spiffe"
  endpoint_spiffe_id = "spiffe://${each.key}/entente/bundle-endpoint"
  bootstrap_wo       = each.value.bundle
}

output "peers" {
  description = "The trust domains that the cluster trusts by this module."
  value       = keys(entente_federation_relationship.peer)
}
