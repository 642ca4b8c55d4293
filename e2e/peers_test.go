package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// endpointHint has bundles travel by the endpoint as slowly as that.
func endpointHint(hint string) string {
	return fmt.Sprintf(`
federation {
  min_refresh      = "1s"
  peer_min_refresh = "1s"
}
bundle_endpoint {
  listen       = "BUNDLES"
  refresh_hint = %q
}
`, hint)
}

// peerUp makes two clusters trust each other over a stream that the first one opens, and waits until both report that
// it updates their bundles.
func peerUp(t testing.TB, dials, accepts *cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	var addresses []string
	for _, p := range accepts.members {
		addresses = append(addresses, p.api)
	}
	for _, side := range []struct {
		here, there *cluster
		addresses   []string
	}{{accepts, dials, nil}, {dials, accepts, addresses}} {
		federate(t, side.here, side.there)
		_, err := side.here.members[0].socket().
			Federation().
			UpdateRelationship(ctx, &ententev1.UpdateRelationshipRequest{
				Relationship: &ententev1.Relationship{
					TrustDomain: side.there.domain,
					Peer:        &ententev1.Peer{HomeTrustDomain: side.there.domain, Addresses: side.addresses},
				},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"peer"}},
			})
		require.NoError(t, err)
	}
	streamUp(t, dials, accepts.domain)
	streamUp(t, accepts, dials.domain)
}

// streamUp waits until a member of c reports that a stream updates a domain's bundle.
func streamUp(t testing.TB, c *cluster, domain string) {
	t.Helper()
	eventually(t, "a stream with "+domain, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		defer cancel()
		for _, p := range c.members {
			if !p.isRunning() {
				continue
			}
			r, err := p.socket().
				Federation().
				GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: domain})
			if err != nil {
				return err
			}
			for _, s := range r.GetStreams() {
				if s.GetConnected() && len(s.GetConfirmed()) > 0 {
					return nil
				}
			}
			return fmt.Errorf("%v", r.GetStreams())
		}
		return fmt.Errorf("no member of %s runs", c.name)
	})
}

const (
	kindJWT       = ententev1.AuthorityKind_AUTHORITY_KIND_JWT
	stateActive   = ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE
	statePrepared = ententev1.AuthorityState_AUTHORITY_STATE_PREPARED
)

// authoritiesOf are those of a kind and state, as a member lists them.
func authoritiesOf(
	t testing.TB, p *process, kind ententev1.AuthorityKind, state ententev1.AuthorityState,
) (found []*ententev1.Authority) {
	t.Helper()
	for _, a := range listAuthorities(t, p) {
		if a.GetKind() == kind && a.GetState() == state {
			found = append(found, a)
		}
	}
	return found
}

// TestRevocationReachesAPeerByStream: a revoked JWT key is out of the peer's bundle at once, though both poll once an
// hour; and so it is after the member that leads, or keeps the stream, has died.
func TestRevocationReachesAPeerByStream(t *testing.T) {
	eu, us := newCluster(t, "eu", 3, endpointHint("1h")), newCluster(t, "us", 1, endpointHint("1h"))
	peerUp(t, eu, us)
	ctx, cancel := context.WithTimeout(t.Context(), 4*waitLimit)
	defer cancel()
	revoke := func(by *process) {
		t.Helper()
		var active []*ententev1.Authority
		eventually(t, "a JWT authority", func() error {
			if active = authoritiesOf(t, by, kindJWT, stateActive); len(active) == 0 {
				return fmt.Errorf("none is active")
			}
			return nil
		})
		key := active[0].GetKeyId()
		there := func() string {
			b, err := us.members[0].socket().
				Bundles().
				GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: eu.domain})
			require.NoError(t, err)
			return string(b.GetDocument())
		}
		eventually(t, "the peer to know the key", func() error {
			if !strings.Contains(there(), key) {
				return fmt.Errorf("it does not")
			}
			return nil
		})
		watch, err := us.members[0].socket().
			Bundles().
			WatchBundles(ctx, &ententev1.WatchBundlesRequest{TrustDomains: []string{eu.domain}})
		require.NoError(t, err)
		_, err = by.socket().Authorities().RevokeAuthority(ctx, &ententev1.RevokeAuthorityRequest{
			TrustDomain: eu.domain, What: &ententev1.RevokeAuthorityRequest_Id{Id: active[0].GetId()},
		})
		require.NoError(t, err)
		done := time.Now()
		for {
			told, err := watch.Recv()
			require.NoError(t, err)
			if len(told.GetChanged()) > 0 && !strings.Contains(string(told.GetChanged()[0].GetDocument()), key) {
				break
			}
		}
		t.Logf("out of the peer's bundle %v after the call returned", time.Since(done))
		eventually(t, "the statement on what the stream brought", func() error {
			r, err := us.members[0].socket().
				Federation().
				GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: eu.domain})
			if err == nil && r.GetStatedSequence() != r.GetSequence() {
				err = fmt.Errorf(
					"statements were checked up to %d, and the bundle has %d", r.GetStatedSequence(), r.GetSequence(),
				)
			}
			return err
		})
	}
	revoke(eu.members[0])

	// The leader dies, and with it perhaps the stream.
	dead := eu.leader()
	dead.kill()
	left := eu.others(dead)
	eventually(t, "another leader", func() error { _, err := left[0].leaderID(); return err })
	streamUp(t, us, eu.domain)
	eventually(t, "the stream is known in eu", func() error {
		r, err := left[0].socket().
			Federation().
			GetRelationship(ctx, &ententev1.GetRelationshipRequest{TrustDomain: us.domain})
		if err != nil {
			return err
		}
		for _, s := range r.GetStreams() {
			if s.GetConnected() && s.GetMember() != dead.id {
				return nil
			}
		}
		return fmt.Errorf("%v", r.GetStreams())
	})
	revoke(left[0])
}

// TestActivationWaitsForALostPeer: an authority that a peer may not have waits, the list names the peer, and an
// operator can force it.
func TestActivationWaitsForALostPeer(t *testing.T) {
	eu, us := newCluster(t, "eu", 1, endpointHint("5s")), newCluster(t, "us", 1, endpointHint("5s"))
	peerUp(t, eu, us)
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	p := eu.members[0]
	us.members[0].kill()
	api := p.socket().Authorities()
	_, err := api.RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{TrustDomain: eu.domain})
	require.NoError(t, err)
	var waits *ententev1.Authority
	eventually(t, "the new JWT authority to wait for the peer", func() error {
		for _, a := range authoritiesOf(t, p, kindJWT, statePrepared) {
			if strings.Contains(a.GetWaitsFor(), "It waits for peers") && len(a.GetUnacknowledged()) == 1 {
				waits = a
				return nil
			}
		}
		return fmt.Errorf("%v", listAuthorities(t, p))
	})
	require.Equal(t, us.domain, waits.GetUnacknowledged()[0].GetHomeTrustDomain())
	require.Contains(
		t, command(t, "authority", "show", waits.GetId(), "--socket", filepath.Join(p.dir, "data", "admin.sock")),
		"by us.example.org (no stream for ",
	)
	answer, err := api.ActivateAuthority(
		ctx, &ententev1.ActivateAuthorityRequest{TrustDomain: eu.domain, Id: waits.GetId()},
	)
	require.NoError(t, err)
	require.Contains(t, strings.Join(answer.GetWarnings(), "\n"), "is not acknowledged")
	require.Equal(
		t, waits.GetId(), authoritiesOf(t, p, kindJWT, stateActive)[0].GetId(),
	)
}
