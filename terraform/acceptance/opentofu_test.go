package acceptance

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/devbuild"
	"github.com/ententehq/entente/internal/shorttest"
	"github.com/ententehq/entente/node/nodetest"
)

// OpenTofu runs the provider as terraform does: resources, imports, data sources, functions and ephemeral resources.
func TestOpenTofu(t *testing.T) {
	shorttest.Skip(t, "it runs OpenTofu")
	t.Parallel()
	tofu, err := devbuild.OpenTofu.Built(t.Context())
	require.NoError(t, err)
	if tofu == "" && os.Getenv("CI") != "" {
		tofu, err = devbuild.OpenTofu.Build(t.Context())
		require.NoError(t, err)
	}
	if tofu == "" {
		t.Skip("left out: needs OpenTofu, which is not built yet: make peers")
	}
	m, err := nodetest.Start()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	for name, life := range map[string]func(*workspace){
		"trust domain": trustDomainLife, "relationship": relationshipLife, "access and routing": accessAndRouting,
		"data sources and functions": dataSourcesAndFunctions, "ephemeral resources": ephemeralResources,
	} {
		t.Run(name, func(t *testing.T) { life(workspaceFor(t, tofu, m)) })
	}
}
