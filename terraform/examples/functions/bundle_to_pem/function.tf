output "roots" {
  value = provider::entente::bundle_to_pem("us.example.org", file("us.example.org.json"))
}
