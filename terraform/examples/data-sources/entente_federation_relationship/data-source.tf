data "entente_federation_relationship" "us" {
  trust_domain = "us.example.org"
}

output "freshness" {
  value = data.entente_federation_relationship.us.freshness
}
