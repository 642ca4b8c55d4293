output "authorities" {
  value = provider::entente::parse_bundle("us.example.org", file("us.example.org.json")).x509_authorities
}
