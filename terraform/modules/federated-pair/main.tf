# Two clusters that trust each other's home trust domains. Each side starts from the other's bundle, as the other
# cluster has it at the time; from then on each fetches it from the other's bundle endpoint.

terraform {
  required_version = ">= 1.11"
  required_providers {
    entente = {
      source                = "ententehq/entente"
      configuration_aliases = [entente.a, entente.b]
    }
  }
}

variable "a" {
  description = "The first cluster: its home trust domain and the URL of its bundle endpoint."
  type = object({
    trust_domain = string
    url          = string
  })
}

variable "b" {
  description = "The second cluster: its home trust domain and the URL of its bundle endpoint."
  type = object({
    trust_domain = string
    url          = string
  })
}

data "entente_bundle" "a" {
  provider     = entente.a
  trust_domain = var.a.trust_domain
}

data "entente_bundle" "b" {
  provider     = entente.b
  trust_domain = var.b.trust_domain
}

resource "entente_federation_relationship" "b_at_a" {
  provider           = entente.a
  trust_domain       = var.b.trust_domain
  url                = var.b.url
  profile            = "https_spiffe"
  endpoint_spiffe_id = "spiffe://${var.b.trust_domain}/entente/bundle-endpoint"
  bootstrap_wo       = data.entente_bundle.b.document
}

resource "entente_federation_relationship" "a_at_b" {
  provider           = entente.b
  trust_domain       = var.a.trust_domain
  url                = var.a.url
  profile            = "https_spiffe"
  endpoint_spiffe_id = "spiffe://${var.a.trust_domain}/entente/bundle-endpoint"
  bootstrap_wo       = data.entente_bundle.a.document
}
