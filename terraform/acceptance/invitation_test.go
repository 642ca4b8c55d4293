package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/node/nodetest"
)

// pairOf starts two clusters, and returns a client of each and the provider blocks for them: eu and us.
func pairOf(t *testing.T) (eu, us *client.Client, providers string) {
	t.Helper()
	var clients []*client.Client
	for _, name := range []string{"eu", "us"} {
		m, err := nodetest.StartIn(spiffeid.RequireTrustDomainFromString(name + ".example.com"))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.Close()) })
		providers += fmt.Sprintf("provider \"entente\" {\n  alias  = %q\n  socket = %q\n}\n", name, m.Socket)
		c, err := client.New(t.Context(), client.WithAdminSocket(m.Socket))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		clients = append(clients, c)
	}
	return clients[0], clients[1], providers
}

// One apply federates two clusters by an invitation. Its secret is in no file and no log, and a plan after it is empty.
func TestInvitation(t *testing.T) {
	w := newWorkspace(t)
	eu, us, providers := pairOf(t)
	w.provider = providers
	kept := filepath.Join(w.dir, "kept")
	pair := func(domain, more string) string {
		return fmt.Sprintf(`
ephemeral "entente_secret" "pair" {}
resource "entente_federation_invitation" "us" {
  provider             = entente.eu
  trust_domain         = "eu.example.com"
  foreign_trust_domain = "us.example.com"
  approved             = true
  ttl                  = "30m"
  secret_wo            = ephemeral.entente_secret.pair.value
}
locals {
  token = provider::entente::invitation_token(
    entente_federation_invitation.us.public_part, ephemeral.entente_secret.pair.value)
}
resource "entente_federation_agreement" "eu" {
  provider     = entente.us
  trust_domain = %q
  approve      = true
  token_wo     = local.token
}
resource "terraform_data" "keep" {
  provisioner "local-exec" {
    command     = "printf '%%s\\n' \"$SECRET\" \"$TOKEN\" >> '%s'"
    environment = {
      SECRET = ephemeral.entente_secret.pair.value
      TOKEN  = local.token
    }
  }
}
%s`, domain, kept, more)
	}
	// An invitation of another domain than the configuration names is not sent, and so not used.
	require.Contains(t, w.refused(pair("asia.example.com", ""), "apply", "-auto-approve"),
		"invitation in token_wo is of eu.example.com, and trust_domain is asia.example.com: nothing was sent")
	invitations, err := eu.Federation().ListInvitations(t.Context(), &ententev1.ListInvitationsRequest{})
	require.NoError(t, err)
	require.Len(t, invitations.GetInvitations(), 1)
	require.Equal(t, ententev1.InvitationState_INVITATION_STATE_OPEN, invitations.GetInvitations()[0].GetState())
	w.destroy()

	plan := filepath.Join(w.dir, "plan")
	w.configure(pair("eu.example.com", ""))
	w.env = []string{"TF_LOG=TRACE"}
	status, planned := w.terraform("plan", "-no-color", "-out", plan)
	require.Zero(t, status, planned)
	status, log := w.terraform("apply", "-no-color", plan)
	require.Zero(t, status, log)
	w.env = nil
	for c, other := range map[*client.Client]string{eu: "us.example.com", us: "eu.example.com"} {
		var is *ententev1.Relationship
		require.Eventually(t, func() bool {
			is, err = c.Federation().GetRelationship(t.Context(),
				&ententev1.GetRelationshipRequest{TrustDomain: other})
			return err == nil && is.GetState() == ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE
		}, time.Minute, 100*time.Millisecond, "the relationship with %s is active: %v %v", other, is, err)
	}

	// The invitation is spent, and stays.
	w.unchanged()
	status, out := w.terraform("apply", "-auto-approve", "-no-color")
	require.Zero(t, status, out)
	require.Equal(t, "used", w.state("entente_federation_invitation.us")["state"])
	require.Equal(t, "active", w.state("entente_federation_agreement.eu")["state"])
	w.unchanged()

	content, err := os.ReadFile(kept)
	require.NoError(t, err)
	lines := strings.Fields(string(content))
	require.Len(t, lines[0], 43)
	require.True(t, strings.HasPrefix(lines[1], "entente-federate-1-"))
	for _, name := range []string{"terraform.tfstate", "plan"} {
		stored, err := os.ReadFile(filepath.Join(w.dir, name))
		require.NoError(t, err)
		for _, secret := range lines {
			require.NotContains(t, string(stored), secret, name)
		}
	}
	status, shown := w.terraform("show", "-json", plan)
	require.Zero(t, status, shown)
	for _, secret := range lines {
		require.NotContains(t, planned+log+shown, secret)
	}

	// An agreement and a relationship for one trust domain exclude each other.
	require.Contains(t, w.refused(pair("eu.example.com", `
resource "entente_federation_relationship" "eu" {
  provider     = entente.us
  trust_domain = "eu.example.com"
  url          = "https://127.0.0.1:1/"
  profile      = "https_web"
}
`), "apply", "-auto-approve"), "The configuration has an entente_federation_relationship and an "+
		"entente_federation_agreement for it.")

	w.configure(pair("eu.example.com", ""))
	w.destroy()
	for _, c := range []*client.Client{eu, us} {
		left, err := c.Federation().ListRelationships(t.Context(), &ententev1.ListRelationshipsRequest{})
		require.NoError(t, err)
		require.Empty(t, left.GetRelationships())
	}
}

func TestJoinToken(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	config := `
ephemeral "entente_secret" "nine" {}
resource "entente_join_token" "nine" {
  member_id = "dev-9"
  ttl       = "1h"
  secret_wo = ephemeral.entente_secret.nine.value
}
`
	list := func() []*ententev1.JoinToken {
		all, err := c.Cluster().ListJoinTokens(t.Context(), &ententev1.ListJoinTokensRequest{})
		require.NoError(t, err)
		return all.GetJoinTokens()
	}
	w.apply(config)
	require.Len(t, list(), 1)
	first := list()[0]
	require.Equal(t, first.GetId(), w.state("entente_join_token.nine")["id"])
	require.Equal(t, first.GetPublicPart(), w.state("entente_join_token.nine")["public_part"])

	sibling := newSibling(w)
	sibling.configure(config)
	status, out := sibling.terraform("import", "-no-color", "entente_join_token.nine", "dev-9")
	require.Zero(t, status, out)
	require.Equal(t, first.GetId(), sibling.state("entente_join_token.nine")["id"])

	// One that was revoked is made again.
	_, err := c.Cluster().RevokeJoinToken(t.Context(), &ententev1.RevokeJoinTokenRequest{MemberId: "dev-9"})
	require.NoError(t, err)
	w.apply(config)
	require.Len(t, list(), 1)
	require.NotEqual(t, first.GetId(), list()[0].GetId())

	require.Contains(t, w.refused(strings.Replace(config, "ephemeral.entente_secret.nine.value", `"guessed"`, 1),
		"apply", "-auto-approve", "-replace=entente_join_token.nine"), "not the value of an ephemeral entente_secret")
	w.configure(config)
	w.destroy()
	require.Empty(t, list())
}

func TestService(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	instance := func(address, more string) string {
		return fmt.Sprintf(`
    { address = %q, spiffe_id = "spiffe://dev.example.org/whole", locality = { region = "r", zone = "z" }%s },`,
			address, more)
	}
	config := func(instances ...string) string {
		return "resource \"entente_service\" \"whole\" {\n  name = \"whole\"\n  instances = [" +
			strings.Join(instances, "") + "\n  ]\n}\n"
	}
	get := func() map[string]*ententev1.Instance {
		is, err := c.Routing().GetService(t.Context(), &ententev1.GetServiceRequest{Name: "whole"})
		require.NoError(t, err)
		all := map[string]*ententev1.Instance{}
		for _, i := range is.GetInstances() {
			all[i.GetAddress()] = i
		}
		return all
	}
	two, one, three := instance("10.9.9.2:443", ", weight = 7"), instance("10.9.9.1:443", ""),
		instance("10.9.9.3:443", `, health = "draining"`)
	w.apply(config(two, one)) // in the order of the configuration
	require.Len(t, get(), 2)
	require.EqualValues(t, 7, get()["10.9.9.2:443"].GetWeight())
	first := get()["10.9.9.1:443"]

	w.apply(config(one, three))
	require.Len(t, get(), 2)
	require.Equal(t, ententev1.Health_HEALTH_DRAINING, get()["10.9.9.3:443"].GetHealth())
	require.Equal(t, first.GetEtag(), get()["10.9.9.1:443"].GetEtag(), "what did not change was written")

	// Drift: an instance that somebody has added, and one that somebody has changed.
	for _, drift := range []*ententev1.Instance{
		{Service: "whole", Address: "10.9.9.4:443", Weight: 1},
		{Service: "whole", Address: "10.9.9.1:443", Weight: 5},
	} {
		drift.SpiffeId, drift.Locality = "spiffe://dev.example.org/whole", &ententev1.Locality{Region: "r", Zone: "z"}
		_, err := c.Routing().RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{Instance: drift})
		require.NoError(t, err)
		w.plans(config(one, three))
		w.apply(config(one, three))
	}
	require.Len(t, get(), 2)

	sibling := newSibling(w)
	require.Contains(t, sibling.refused(config(one), "apply", "-auto-approve"), "because it exists")
	sibling.configure(config(one, three))
	status, out := sibling.terraform("import", "-no-color", "entente_service.whole", "whole")
	require.Zero(t, status, out)
	sibling.unchanged()

	require.Contains(t, w.refused(config(instance("example.org:443", "")), "apply", "-auto-approve"), "IP literal")
	require.Contains(t, w.refused(config(), "apply", "-auto-approve"), "a service is its instances; name at least one")
	w.configure(config(one, three))
	w.destroy()
	_, err := c.Routing().GetService(t.Context(), &ententev1.GetServiceRequest{Name: "whole"})
	require.ErrorIs(t, err, client.ErrNotFound)
}
