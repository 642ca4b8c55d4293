resource "entente_routing_rule" "checkout" {
  service            = "checkout"
  failover_threshold = 70
  stale              = "demote"
  failover           = [{ from = "eu", to = ["us", "ap"] }]
  distribution       = [{ from = "eu/a", to = { "eu/a" = 80, "eu/b" = 20 } }]
}
