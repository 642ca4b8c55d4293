package acceptance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Ephemeral resources issue SVIDs and make secrets, and leave nothing of them in state, plan or log.
func TestEphemeralResources(t *testing.T) { ephemeralResources(newWorkspace(t)) }

func ephemeralResources(w *workspace) {
	t := w.TB
	kept := filepath.Join(w.dir, "kept")
	w.configure(`
ephemeral "entente_secret" "one" {}
ephemeral "entente_x509_svid" "web" {
  spiffe_id = "spiffe://dev.example.org/terraform/web"
  ttl       = "5m"
}
ephemeral "entente_jwt_svid" "web" {
  spiffe_id = "spiffe://dev.example.org/terraform/web"
  audience  = ["shop"]
}
resource "terraform_data" "keep" {
  provisioner "local-exec" {
    command = "printf '%s\n' \"$KEY\" \"$TOKEN\" \"$SECRET\" > '` + kept + `'"
    environment = {
      KEY    = ephemeral.entente_x509_svid.web.private_key
      TOKEN  = ephemeral.entente_jwt_svid.web.token
      SECRET = ephemeral.entente_secret.one.value
    }
  }
}
`)
	plan := filepath.Join(w.dir, "plan")
	status, planned := w.terraform("plan", "-no-color", "-out", plan)
	require.Zero(t, status, planned)
	w.env = []string{"TF_LOG=TRACE"}
	status, log := w.terraform("apply", "-no-color", plan)
	require.Zero(t, status, log)
	content, err := os.ReadFile(kept)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	secret, token := lines[len(lines)-1], lines[len(lines)-2]
	require.Len(t, secret, 43)
	require.Equal(t, 2, strings.Count(token, "."))
	require.Contains(t, lines[0], "BEGIN PRIVATE KEY")
	state, err := os.ReadFile(filepath.Join(w.dir, "terraform.tfstate"))
	require.NoError(t, err)
	require.True(t, json.Valid(state))
	for _, hidden := range []string{secret, token, lines[1]} {
		require.NotContains(t, string(state), hidden)
		require.NotContains(t, planned, hidden)
		require.NotContains(t, log, hidden)
	}
}
