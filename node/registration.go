package node

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/access/record"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/registration"
	"github.com/ententehq/entente/registration/agenttoken"
)

func buildRegistration(m *member) error {
	m.registration = registration.New(registration.Config{
		Store: m.store, Home: m.cfg.Cluster.TrustDomain, Signer: m.authority, ParseCSR: svid.ParseCSR,
		Lifetimes: func(r raftstore.Reader, td spiffeid.TrustDomain) (registration.Lifetimes, bool, error) {
			row, found, err := table.Domains.Get(r, td.Name())
			s := table.SettingsOf(row.Value)
			return registration.Lifetimes{X509: s.X509SVIDTTL, JWT: s.JWTSVIDTTL}, found, err
		},
		AuthorMay: m.guard.AuthorMay, Servers: m.agentServers,
		Binding: port.BindingFrom, Logger: m.log.Named("registration"),
	})
	return nil
}

// agentServers returns the members as agents reach them.
func (m *member) agentServers() (servers []agenttoken.Server) {
	members, _ := m.directory.Identities()
	for _, s := range members {
		servers = append(servers, agenttoken.Server{
			Address: s.GetAddress(), Identity: memberid.Digest(s.GetIdentity()),
		})
	}
	return servers
}

// endEntries deletes the entries of a hosted trust domain that is deleted.
func endEntries(tx *raftstore.Tx, td spiffeid.TrustDomain) ([]*ententev1.Effect, error) {
	n, err := registration.EndDomain(tx, td)
	if err != nil || n == 0 {
		return nil, err
	}
	return []*ententev1.Effect{{
		Kind: "svids", Subject: fmt.Sprintf("%d registration entries", n), Detail: "are deleted: no agent has SVIDs " +
			"by them",
	}}, nil
}

// recordAttestation puts the attestation of a new agent into the cluster's record of administrative changes. One that
// is refused, and one of a known agent, runs no transaction that writes.
func (m *member) recordAttestation(
	ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	r, ok := request.(*ententev1.AttestAgentRequest)
	if !ok || r.GetToken() == nil {
		return handler(ctx, request)
	}
	attested := record.NewCall(m.store, time.Now)
	attested.Describe(record.Description{
		Caller: "agent at " + port.HostFrom(ctx), Action: "AttestationService/AttestAgent",
		Object: fmt.Sprintf("with token %.40q", r.GetToken().GetId()),
	})
	return handler(attested.Context(ctx), request)
}
