package devbuild

import "regexp"

// OpenTofu is its command, without the backends of states that no test uses. Its go.mod replaces HCL, which counts only
// where it is the main module.
var OpenTofu = Program{
	Module: "tofudev", Package: "./cmd/tofu", Copied: "github.com/opentofu/opentofu",
	Files: "internal/backend/init/init.go",
	Drop:  regexp.MustCompile(`\bbackend(Azure|Consul|Cos|GCS|Kubernetes|OSS|Pg|S3)\b`),
}
