resource "entente_service_import" "payments" {
  name    = "payments"
  service = "payments"
  from    = "us.example.org"
}
