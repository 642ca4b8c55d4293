data "entente_cluster" "this" {}

output "leader" {
  value = one([for member in data.entente_cluster.this.members : member.id if member.leader])
}
