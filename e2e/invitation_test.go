package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func federationOf(p *process) ententev1.FederationServiceClient {
	return p.socket().Federation()
}

// invite makes an invitation of c for another domain.
func invite(
	t *testing.T, p *process, own, foreign string, adjust ...func(*ententev1.CreateInvitationRequest),
) *ententev1.CreateInvitationResponse {
	t.Helper()
	req := &ententev1.CreateInvitationRequest{TrustDomain: own, ForeignTrustDomain: foreign}
	for _, f := range adjust {
		f(req)
	}
	made, err := federationOf(p).CreateInvitation(t.Context(), req)
	require.NoError(t, err)
	return made
}

func approved(r *ententev1.CreateInvitationRequest) { r.Approve = true }

// redeem accepts an invitation.
func redeem(t *testing.T, p *process, token string, approve bool) (*ententev1.RedeemInvitationResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	return federationOf(p).RedeemInvitation(ctx, &ententev1.RedeemInvitationRequest{Token: token, Approve: approve})
}

// awaitRelationship waits until a relationship is in a state.
func awaitRelationship(t *testing.T, p *process, td string, want ententev1.RelationshipState) *ententev1.Relationship {
	t.Helper()
	var rel *ententev1.Relationship
	eventually(t, fmt.Sprintf("%s has %s %s", p.id, td, want), func() (err error) {
		rel, err = federationOf(p).GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: td})
		if err == nil && rel.GetState() != want {
			err = fmt.Errorf("it is %s", rel.GetState())
		}
		return err
	})
	return rel
}

// serves reports whether a member serves a foreign domain's bundle.
func serves(t *testing.T, p *process, td string) bool {
	t.Helper()
	_, err := p.socket().Bundles().GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: td})
	if status.Code(err) == codes.NotFound {
		return false
	}
	require.NoError(t, err)
	return true
}

func TestTwoClustersFederateByOneToken(t *testing.T) {
	eu, us := newCluster(t, "eu", 1, quick), newCluster(t, "us", 1, quick)
	euMember, usMember := eu.members[0], us.members[0]
	began := time.Now()
	made := invite(t, euMember, eu.domain, us.domain)
	done, err := redeem(t, usMember, made.GetToken(), false)
	require.NoError(t, err)
	require.Empty(t, done.GetWarnings())
	require.Equal(t, ententev1.RelationshipState_RELATIONSHIP_STATE_PENDING, done.GetRelationship().GetState())

	// No side has approved: both have the bundle, and serve it to no caller.
	rel := awaitRelationship(t, euMember, us.domain, ententev1.RelationshipState_RELATIONSHIP_STATE_PENDING)
	require.True(t, rel.GetAgreement().GetInvited())
	require.NotEmpty(t, rel.GetDigest())
	require.False(t, serves(t, euMember, us.domain))
	require.False(t, serves(t, usMember, eu.domain))

	// One consent is not both.
	_, err = federationOf(
		euMember,
	).ApproveRelationship(t.Context(), &ententev1.ApproveRelationshipRequest{TrustDomain: us.domain})
	require.NoError(t, err)
	eventually(t, "us knows that eu has approved", func() error {
		rel, err := federationOf(
			usMember,
		).GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: eu.domain})
		if err == nil && rel.GetAgreement().GetPeerApproveTime() == nil {
			err = fmt.Errorf("it does not: %v", rel.GetAgreement())
		}
		return err
	})
	require.False(t, serves(t, usMember, eu.domain))
	require.False(t, serves(t, euMember, us.domain))
	_, err = federationOf(
		usMember,
	).ApproveRelationship(t.Context(), &ententev1.ApproveRelationshipRequest{TrustDomain: eu.domain})
	require.NoError(t, err)
	awaitRelationship(t, usMember, eu.domain, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE)
	awaitRelationship(t, euMember, us.domain, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE)
	require.True(t, serves(t, euMember, us.domain))

	// A workload of us is let in by eu, and a stream is open.
	caller := issue(t, usMember, "spiffe://us.example.org/web")
	outsider := workload{svid: caller.svid, bundle: issue(t, euMember, "spiffe://eu.example.org/any").bundle}
	api := outsider.call(t, euMember, eu.domain).Bundles()
	eventually(t, "the port trusts us", func() error {
		if _, err := api.GetBundle(t.Context(), &ententev1.GetBundleRequest{}); status.Code(
			err,
		) != codes.PermissionDenied {
			return fmt.Errorf("%w", err)
		}
		return nil
	})
	t.Logf("federated, with a handshake across, in %s", time.Since(began))
	eventually(t, "a stream is open", func() error {
		rel, err := federationOf(
			usMember,
		).GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: eu.domain})
		if err == nil && (len(rel.GetStreams()) == 0 || !rel.GetStreams()[0].GetConnected()) {
			err = fmt.Errorf("none: %v", rel.GetStreams())
		}
		return err
	})

	// The token is spent, and the same cluster may have lost the answer.
	again, err := redeem(t, usMember, made.GetToken(), false)
	require.NoError(t, err)
	require.Equal(t, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE, again.GetRelationship().GetState())
	list, err := federationOf(euMember).ListInvitations(t.Context(), &ententev1.ListInvitationsRequest{})
	require.NoError(t, err)
	require.Equal(t, ententev1.InvitationState_INVITATION_STATE_USED, list.GetInvitations()[0].GetState())

	// One side ends it; the other learns of it, and relies on nothing more.
	_, err = federationOf(
		euMember,
	).DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: us.domain})
	require.NoError(t, err)
	rel = awaitRelationship(t, usMember, eu.domain, ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED)
	require.NotNil(t, rel.GetAgreement().GetEndTime())
	require.False(t, serves(t, usMember, eu.domain))
	_, err = redeem(t, usMember, made.GetToken(), true)
	require.ErrorContains(t, err, "its agreement has ended since")

	// A new token replaces what is left of the previous agreement.
	made = invite(t, euMember, eu.domain, us.domain, approved)
	_, err = redeem(t, usMember, made.GetToken(), true)
	require.NoError(t, err)
	awaitRelationship(t, usMember, eu.domain, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE)
	awaitRelationship(t, euMember, us.domain, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE)
}

// A domain that is not the home one brings the other cluster's home domain along, by which its members and endpoint are
// verified.
func TestAnInvitationForADomainBesideTheHomeDomain(t *testing.T) {
	eu, us := newCluster(t, "eu", 1, quick), newCluster(t, "us", 1, quick)
	_, err := eu.members[0].socket().Domains().CreateDomain(t.Context(), &ententev1.CreateDomainRequest{
		Domain: &ententev1.Domain{TrustDomain: "shop.example.org"},
	})
	require.NoError(t, err)
	eventually(t, "the domain has an authority", func() error {
		_, err := tryIssue(t, eu.members[0], "spiffe://shop.example.org/any")
		return err
	})
	made := invite(t, eu.members[0], "shop.example.org", us.domain, approved)
	// A home domain that the operator has not named is not trusted; the same token works once it is named.
	_, err = redeem(t, us.members[0], made.GetToken(), true)
	require.ErrorContains(
		t, err,
		"the home trust domain of the cluster of shop.example.org is eu.example.org, which would be trusted too",
	)
	_, err = federationOf(
		us.members[0],
	).RedeemInvitation(t.Context(), &ententev1.RedeemInvitationRequest{
		Token: made.GetToken(), Approve: true, HomeTrustDomain: eu.domain,
	})
	require.NoError(t, err)
	for _, td := range []string{"shop.example.org", eu.domain} {
		rel := awaitRelationship(t, us.members[0], td, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE)
		require.Equal(t, td == eu.domain, rel.GetAgreement().GetLinkedHome())
	}
	eventually(t, "the bundle of the shop is fetched", func() error {
		rel, err := federationOf(
			us.members[0],
		).RefreshRelationship(t.Context(), &ententev1.RefreshRelationshipRequest{TrustDomain: "shop.example.org"})
		if err == nil && rel.GetLastError() != "" {
			err = fmt.Errorf("%s", rel.GetLastError())
		}
		return err
	})
	_, err = federationOf(
		us.members[0],
	).DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: "shop.example.org"})
	require.NoError(t, err)
	_, err = federationOf(
		us.members[0],
	).GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: eu.domain})
	require.Equal(t, codes.NotFound, status.Code(err), "what came along goes along")
	awaitRelationship(t, eu.members[0], us.domain, ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED)
}

// The deletion of a hosted domain ends the agreement about it at the peer, which relies on nothing of it any more.
func TestADeletedDomainEndsItsAgreement(t *testing.T) {
	eu, us := newCluster(t, "eu", 1, quick), newCluster(t, "us", 1, quick)
	euMember, usMember := eu.members[0], us.members[0]
	domains := euMember.socket().Domains()
	_, err := domains.CreateDomain(t.Context(), &ententev1.CreateDomainRequest{
		Domain: &ententev1.Domain{TrustDomain: "shop.example.org"},
	})
	require.NoError(t, err)
	eventually(t, "the domain has an authority", func() error {
		_, err := tryIssue(t, euMember, "spiffe://shop.example.org/any")
		return err
	})
	made := invite(t, euMember, "shop.example.org", us.domain, approved)
	_, err = federationOf(usMember).RedeemInvitation(t.Context(), &ententev1.RedeemInvitationRequest{
		Token: made.GetToken(), Approve: true, HomeTrustDomain: eu.domain,
	})
	require.NoError(t, err)
	awaitRelationship(t, usMember, "shop.example.org", ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE)
	awaitRelationship(t, euMember, us.domain, ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE)
	require.True(t, serves(t, usMember, "shop.example.org"))

	dry, err := domains.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{
		TrustDomain: "shop.example.org", DryRun: true,
	})
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(dry.GetEffects(), func(e *ententev1.Effect) bool {
		return e.GetSubject() == us.domain && strings.Contains(e.GetDetail(), "ends there too")
	}), "%v", dry.GetEffects())
	require.True(t, serves(t, usMember, "shop.example.org"))

	_, err = domains.DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: "shop.example.org"})
	require.NoError(t, err)
	rel := awaitRelationship(t, usMember, "shop.example.org",
		ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED)
	require.NotNil(t, rel.GetAgreement().GetEndTime())
	require.False(t, serves(t, usMember, "shop.example.org"))
	_, err = federationOf(euMember).GetRelationship(
		t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: us.domain})
	require.Equal(t, codes.NotFound, status.Code(err), "what was agreed for the domain goes with it")
}

// Two clusters that both call themselves us.example.org use one token at the same moment, at a cluster of three.
func TestAnInvitationWorksOnceOverAllMembers(t *testing.T) {
	eu := newCluster(t, "eu", 3, quick)
	rivals := []*cluster{newCluster(t, "us", 1, quick), newCluster(t, "us", 1, quick)}
	made := invite(t, eu.members[1], eu.domain, "us.example.org", approved)
	type outcome struct {
		rival int
		err   error
	}
	outcomes := make(chan outcome, len(rivals))
	for i, rival := range rivals {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
			defer cancel()
			_, err := federationOf(
				rival.members[0],
			).RedeemInvitation(ctx, &ententev1.RedeemInvitationRequest{Token: made.GetToken(), Approve: true})
			outcomes <- outcome{i, err}
		}()
	}
	var won, lost []outcome
	for range rivals {
		if o := <-outcomes; o.err == nil {
			won = append(won, o)
		} else {
			lost = append(lost, o)
		}
	}
	require.Len(t, won, 1, "%v", lost)
	require.ErrorContains(t, lost[0].err, "by another cluster")
	loser := federationOf(rivals[lost[0].rival].members[0])
	_, err := loser.GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: eu.domain})
	require.Equal(t, codes.NotFound, status.Code(err), "who was refused has stored nothing")
	for _, p := range eu.members {
		awaitRelationship(t, p, "us.example.org", ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE)
	}
}

func TestInvitationsThatDoNotCount(t *testing.T) {
	eu, us := newCluster(t, "eu", 1, quick), newCluster(t, "us", 1, quick)
	p := us.members[0]
	refused := func(token, says string) {
		t.Helper()
		_, err := redeem(t, p, token, true)
		require.ErrorContains(t, err, says)
		_, err = federationOf(p).GetRelationship(t.Context(), &ententev1.GetRelationshipRequest{TrustDomain: eu.domain})
		require.Equal(t, codes.NotFound, status.Code(err), "nothing is stored")
	}
	made := invite(t, eu.members[0], eu.domain, us.domain)
	whole := made.GetToken()
	refused(whole[:len(whole)-3], "a damaged token")
	refused("entente-join-1-abc", "not a token of this kind")
	refused(
		invite(t, eu.members[0], eu.domain, "asia.example.org").GetToken(),
		"the invitation is for asia.example.org, which this cluster does not host",
	)

	brief := invite(
		t,
		eu.members[0],
		eu.domain,
		us.domain,
		func(r *ententev1.CreateInvitationRequest) { r.Ttl = durationpb.New(time.Second) },
	)
	<-timerUntil(t, brief.GetInvitation().GetExpireTime().AsTime())
	refused(brief.GetToken(), "the invitation expired at")

	revoked := invite(t, eu.members[0], eu.domain, us.domain)
	_, err := federationOf(
		eu.members[0],
	).RevokeInvitation(t.Context(), &ententev1.RevokeInvitationRequest{Id: revoked.GetInvitation().GetId()})
	require.NoError(t, err)
	refused(revoked.GetToken(), "the invitation was revoked at")

	_, err = federationOf(
		eu.members[0],
	).CreateInvitation(t.Context(), &ententev1.CreateInvitationRequest{
		TrustDomain: us.domain, ForeignTrustDomain: "asia.example.org",
	})
	require.ErrorContains(t, err, "us.example.org is not hosted by this cluster")
	_, err = federationOf(
		eu.members[0],
	).CreateInvitation(t.Context(), &ententev1.CreateInvitationRequest{
		TrustDomain: eu.domain, ForeignTrustDomain: eu.domain,
	})
	require.ErrorContains(t, err, "a hosted domain is never foreign")

	// A snapshot holds the invitation, and its restore voids it.
	restore(t, eu.members[0], snapshot(t, eu.members[0]))
	refused(whole, "the other cluster has no such invitation")

	// A server at the address without the identity key gets nothing.
	late := invite(t, eu.members[0], eu.domain, us.domain)
	eu.members[0].stop()
	refused(late.GetToken(), eu.members[0].api+": ")
	heard := identityThief(t, eu.members[0].api)
	refused(late.GetToken(), "the invitation does not name identity key")
	require.Empty(t, heard())
}

// identityThief listens at an address under entente-join/1 with a key of its own, and returns what it receives.
func identityThief(t *testing.T, address string) func() string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	l, err := tls.Listen("tcp", address, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"entente-join/1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	require.NoError(t, err)
	told := make(chan string)
	go func() {
		var all bytes.Buffer
		for {
			conn, err := l.Accept()
			if err != nil {
				told <- all.String()
				return
			}
			_ = conn.SetDeadline(time.Now().Add(waitLimit))
			_, _ = io.Copy(&all, conn) // ends when the caller hangs up
			_ = conn.Close()
		}
	}()
	return func() string {
		require.NoError(t, l.Close())
		return strings.TrimSpace(<-told)
	}
}

// snapshot saves a member's replicated state.
func snapshot(t *testing.T, p *process) []byte {
	t.Helper()
	stream, err := p.socket().Cluster().SaveSnapshot(t.Context(), &ententev1.SaveSnapshotRequest{})
	require.NoError(t, err)
	var all []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, part.GetData()...)
	}
}

func restore(t *testing.T, p *process, state []byte) {
	t.Helper()
	stream, err := p.socket().Cluster().RestoreSnapshot(t.Context())
	require.NoError(t, err)
	const chunk = 1 << 20
	for len(state) > 0 {
		n := min(chunk, len(state))
		require.NoError(t, stream.Send(&ententev1.RestoreSnapshotRequest{Data: state[:n]}))
		state = state[n:]
	}
	_, err = stream.CloseAndRecv()
	require.NoError(t, err)
}
