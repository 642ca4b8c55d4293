# Sign this member's signing certificates: for this name, without a CA below, and nothing else from the request but its key.
path "pki_eu/issuer/eu-2026/sign-intermediate" {
  capabilities = ["update"]
  allowed_parameters = {
    "csr"                  = []
    "common_name"          = ["Entente authority"]
    "exclude_cn_from_sans" = [true]
    "uri_sans"             = ["spiffe://eu.example.org"]
    "max_path_length"      = ["0"]
    "ttl"                  = []
    "not_before_duration"  = ["30s"]
    "use_csr_values"       = [false]
  }
}

# Revoke a signing certificate, by `entente authority revoke`.
path "pki_eu/revoke" {
  capabilities = ["update"]
  allowed_parameters = {
    "serial_number" = []
  }
}

# Look for roles that could issue SPIFFE IDs too, by `entente vault check`.
path "pki_eu/roles" {
  capabilities = ["list"]
}
path "pki_eu/roles/*" {
  capabilities = ["read"]
}

# Make signing keys that cannot leave Vault, check that they are still there, and delete those that are done with.
path "transit/keys/entente-CLUSTER-eu-MEMBER-eu-1-KEY-*" {
  capabilities = ["update", "read", "delete"]
  allowed_parameters = {
    "type"                   = ["ecdsa-p256"]
    "exportable"             = [false]
    "allow_plaintext_backup" = [false]
    "deletion_allowed"       = [true]
  }
}

# Sign with them.
path "transit/sign/entente-CLUSTER-eu-MEMBER-eu-1-KEY-*" {
  capabilities = ["update"]
  allowed_parameters = {
    "input"                = []
    "prehashed"            = [true]
    "hash_algorithm"       = ["sha2-256"]
    "marshaling_algorithm" = ["asn1"]
    "key_version"          = ["1"]
  }
}

# Keep the login alive.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# Learn how long a token that was given lasts.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
