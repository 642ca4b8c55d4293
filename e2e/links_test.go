package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The command, which includes the server, links neither Kubernetes nor Terraform. They have binaries of their own.
func TestTheCommandLinksNoHeavyClients(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../cmd/entente").Output()
	require.NoError(t, err)
	for path := range strings.Lines(string(out)) {
		for _, heavy := range []string{
			"k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go", "sigs.k8s.io/controller-runtime",
			"github.com/hashicorp/terraform", "github.com/aws/", "cloud.google.com/",
		} {
			require.False(t, strings.HasPrefix(path, heavy), "the command links %s", path)
		}
	}
}
