output "path" {
  value = provider::entente::parse_spiffe_id("spiffe://eu.example.org/checkout").path
}
