# A member of a cluster, with every setting that there is. Only the settings marked "required" must be set; the others
# have the values shown here by default, unless a comment says otherwise.
#
#   entente validate entente.hcl
#   entente server --config entente.hcl --bootstrap      # the first member, once
#   entente server --config entente.hcl                  # from then on
#
# Lines that begin with "#:" are alternatives: remove the two characters, and the block above that they replace.
# A secret is given as "file:PATH" or "env:NAME". docs/operating/settings.md has the bounds of each setting.

# The same on every member.
cluster {
  name         = "eu"                     # required
  trust_domain = "eu.example.org"         # required: the home trust domain, which names the members
  region       = "eu-west-1"              # required
  dns_name     = "entente.eu.example.org" # no default; resolves to the addresses of all members, which have one port
}

# This member.
member {
  id        = "eu-1"                  # required
  zone      = "eu-west-1a"            # required
  data_dir  = "/var/lib/entente"      # mode 0700, of the user that the server runs as
  listen    = "0.0.0.0:7440"          # default 127.0.0.1:7440; members and API clients
  advertise = "eu-1.example.org:7440" # default: as listen; where others reach this member
}

# A further member joins by a token from 'entente cluster join-token ID'. It has no effect on a member that belongs to
# a cluster already. The first member has no such block, and starts with --bootstrap.
#:join {
#:  addresses = ["eu-2.example.org:7440", "eu-3.example.org:7440"]
#:  token     = "file:/etc/entente/join-token"
#:}

# The SPIFFE bundle endpoint, from which other clusters fetch bundles.
bundle_endpoint {
  listen       = "0.0.0.0:7443"             # default 127.0.0.1:7443
  advertise    = "bundles.example.org:7443" # no default; used alone in invitations
  refresh_hint = "5m"                       # of the home domain, when the cluster is formed
  profile "https_spiffe" {}
}

# With a web certificate from files:
#:bundle_endpoint {
#:  listen = "0.0.0.0:7443"
#:  profile "https_web" {
#:    cert_file  = "/etc/entente/web.pem"
#:    key_file   = "/etc/entente/web.key"
#:    roots_file = "/etc/entente/web-roots.pem" # only for a private CA; sent with invitations
#:  }
#:}

# With web certificates by ACME:
#:bundle_endpoint {
#:  listen = "0.0.0.0:443"
#:  profile "https_web" {
#:    acme {
#:     hosts          = ["bundles.example.org"]
#:     agree_to_terms = true
#:     directory      = "https://acme-v02.api.letsencrypt.org/directory"
#:     email          = "ops@example.org"
#:     ca_file        = "/etc/entente/acme-roots.pem" # default: the roots of the system
#:     eab_key_id     = "kid-1"                       # only if the ACME server requires an external account
#:     eab_hmac_key   = "file:/etc/entente/eab-key"
#:    }
#:  }
#:}

# What signs the members' CA certificates: a root of each member's own.
upstream "selfsigned" {
  root_ttl = "2160h" # or four times ca_ttl, if that is longer
}

# With Vault:
#:upstream "vault" {
#:  address         = "https://vault.example.org:8200"
#:  namespace       = "entente"                   # Vault Enterprise only
#:  ca_file         = "/etc/entente/vault-ca.pem" # default: the roots of the system
#:  server_name     = "vault.example.org"         # default: the host of the address
#:  pki_mount       = "pki_eu"
#:  issuers         = ["eu-2026"] # default: the mount's default issuer
#:  anchors         = "file:/etc/entente/eu-root.pem" # default: read from Vault
#:  anchor_approval = false
#:  plain_loopback  = false # true: the address may be http://127.0.0.1:PORT, such as Vault Agent's
#:  auth "kubernetes" {
#:    mount      = "kubernetes"
#:    role       = "entente"
#:    token_file = "/var/run/secrets/kubernetes.io/serviceaccount/token"
#:  }
#:  domain "pay.example.org" { # another hosted trust domain
#:    pki_mount = "pki_pay"
#:  }
#:}

# Other logins to Vault, of which there is one:
#:upstream "vault" {
#:  address   = "https://vault.example.org:8200"
#:  pki_mount = "pki_eu"
#:  auth "token" { token = "env:VAULT_TOKEN" }
#:}

#:upstream "vault" {
#:  address   = "https://vault.example.org:8200"
#:  pki_mount = "pki_eu"
#:  auth "approle" {
#:    role_id   = "env:VAULT_ROLE_ID"
#:    secret_id = "file:/etc/entente/secret-id"
#:  }
#:}

#:upstream "vault" {
#:  address   = "https://vault.example.org:8200"
#:  pki_mount = "pki_eu"
#:  auth "cert" {
#:    cert_file = "/etc/entente/vault-client.pem"
#:    key_file  = "/etc/entente/vault-client.key"
#:  }
#:}

# Lifetimes, limits of issuing, and the place of the signing keys.
authority {
  ca_ttl        = "24h"
  x509_svid_ttl = "1h"
  jwt_svid_ttl  = "5m"
  jwt_key_ttl   = "2160h" # or four times ca_ttl, if that is longer
  signing_grace = "1h"
  issue_rate    = 500 # SVIDs a second for one caller; 0: no limit
  issue_burst   = 2000
  lint_sample   = 1000 # one leaf in so many is checked; 0: none
  keys "disk" {}       # not encrypted, unless the upstream is Vault
}

# With keys on disk that a key on this machine encrypts ('openssl rand -base64 32' makes one):
#:authority {
#:  keys "disk" {
#:    encryption "key" { key = "file:/etc/entente/wrapping-key" }
#:  }
#:}

# With keys in Vault, which signs. With upstream "vault", the address and auth are left out.
#:authority {
#:  keys "vault_transit" {
#:    mount      = "transit"
#:    key_prefix = "entente"
#:    address    = "https://vault.example.org:8200"
#:    auth "token" { token = "env:VAULT_TOKEN" }
#:  }
#:}

# With keys in memory, which end with the process:
#:authority {
#:  keys "memory" {}
#:}

federation {
  min_refresh      = "10s"
  peer_min_refresh = "15s"      # the slowest peer does not poll more often than this
  approval         = "required" # or "none": agreements by invitation wait for no operator
  bundle_dir       = "/etc/entente/bundles" # for relationships from files

  egress_proxy             = "http://proxy.example.org:3128" # or "none": connect directly
  egress_proxy_credentials = "file:/etc/entente/proxy"       # USER:PASSWORD
}

routing {
  overprovisioning_factor = 140 # percent
  panic_threshold         = 50  # percent; 0 disables panic
  stale                   = "demote"
  self_preservation       = 15 # percent; 100 disables it
  import_ttl              = "10m"
}

raft {
  heartbeat_timeout = "1s"
  election_timeout  = "1s"
  disk_timeout      = "10s"
}

# Snapshots of the replicated state, which a member saves by itself. Without this block it saves none.
#:snapshots {
#:  dir        = "/var/backups/entente" # not in data_dir
#:  every      = "6h"
#:  keep       = 28
#:  recipients = ["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"] # default: not encrypted
#:}

# /metrics, /live and /ready, in plain HTTP.
telemetry {
  listen     = "127.0.0.1:7448"
  log_level  = "info" # trace, debug, info, warn or error
  log_format = "text" # or json
}

# The same with traces, which go to an OpenTelemetry collector by OTLP over gRPC.
#:telemetry {
#:  traces {
#:    address       = "otel.example.org:4317"
#:    ratio         = 0.01                           # of all traces; give all clusters the same
#:    ca_file       = "/etc/entente/otel-ca.pem"     # default: the roots of the system
#:    authorization = "file:/etc/entente/otel-token" # the header authorization, such as: Bearer …
#:    # plain_loopback = true                        # without TLS, to a collector on this machine
#:  }
#:}

# What admits agents besides one-time tokens. The same on every member.
#:agents {
#:  x509pop {
#:    ca_file = "/etc/entente/node-ca.pem"       # authorities of the certificates of nodes
#:  }
#:  kubernetes "prod" {
#:    accounts   = ["entente:entente-agent"]     # service accounts of agents, NAMESPACE:NAME
#:    audience   = "entente"                     # of their projected tokens
#:    server     = "https://kubernetes.default.svc"
#:    ca_file    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
#:    token_file = "/var/run/secrets/kubernetes.io/serviceaccount/token"
#:  }
#:}
