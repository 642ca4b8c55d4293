// Command terraform-provider-entente serves the Terraform provider of Entente. Terraform and OpenTofu start it.
package main

import (
	"context"
	"fmt"
	"os"

	framework "github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	"github.com/ententehq/entente/terraform/provider"
)

// version is that of the build.
var version = "dev"

func main() {
	err := providerserver.Serve(context.Background(), func() framework.Provider { return provider.New(version) },
		providerserver.ServeOpts{Address: "registry.terraform.io/ententehq/entente"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
