// The version of SPIRE that tests run. Its server is built from a copy of its own module: see e2e/docs.
module github.com/ententehq/entente/e2e/spiredev

go 1.26.0

require github.com/spiffe/spire v1.13.3
