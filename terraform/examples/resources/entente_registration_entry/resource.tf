# Any pod of the service account web, on every node that Kubernetes has shown.
resource "entente_registration_entry" "web" {
  id               = "web"
  spiffe_id        = "spiffe://eu.example.org/web"
  parent_selectors = ["agent:attestation:k8s_psat"]
  selectors        = ["k8s:ns:shop", "k8s:sa:web"]
  dns_names        = ["web.shop.example.org"]
  federates_with   = ["us.example.org"]
}
