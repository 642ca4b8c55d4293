// The version of OpenTofu that tests run. It is built from a copy of its own module, whose replace of HCL counts there
// alone: see internal/devbuild.
module github.com/ententehq/entente/e2e/tofudev

go 1.26.6

require github.com/opentofu/opentofu v1.12.6
