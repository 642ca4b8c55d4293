package node

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/access/record"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/registration"
	"github.com/ententehq/entente/registration/agenttoken"
	"github.com/ententehq/entente/registration/nodeattest"
)

func buildRegistration(m *member) error {
	x509pop, kubernetes, err := nodeAttestors(m.cfg.Agents)
	if err != nil {
		return err
	}
	m.registration = registration.New(registration.Config{
		Store: m.store, Home: m.cfg.Cluster.TrustDomain, Signer: m.authority, ParseCSR: svid.ParseCSR,
		Lifetimes: func(r raftstore.Reader, td spiffeid.TrustDomain) (registration.Lifetimes, bool, error) {
			row, found, err := table.Domains.Get(r, td.Name())
			s := table.SettingsOf(row.Value)
			return registration.Lifetimes{X509: s.X509SVIDTTL, JWT: s.JWTSVIDTTL}, found, err
		},
		AuthorMay: m.authorMay, Servers: m.agentServers,
		X509PoP: x509pop, Kubernetes: kubernetes, Certificate: m.authority.MemberSVID,
		Binding: port.BindingFrom, Origin: port.OriginFrom, Logger: m.log.Named("registration"),
	})
	return nil
}

// nodeAttestors returns what verifies the evidence of agents.
func nodeAttestors(cfg config.Agents) (*nodeattest.X509PoP, map[string]*nodeattest.Kubernetes, error) {
	var x509pop *nodeattest.X509PoP
	if cfg.X509PoPRoots != "" {
		pem, err := os.ReadFile(cfg.X509PoPRoots)
		if err != nil {
			return nil, nil, fmt.Errorf("agents.x509pop.ca_file: %w", err)
		}
		roots, err := nodeattest.ParseRoots(pem)
		if err != nil {
			return nil, nil, fmt.Errorf("agents.x509pop.ca_file %s: %w", cfg.X509PoPRoots, err)
		}
		x509pop = &nodeattest.X509PoP{Roots: roots}
	}
	kubernetes := map[string]*nodeattest.Kubernetes{}
	for _, k := range cfg.Kubernetes {
		made, err := nodeattest.NewKubernetes(k)
		if err != nil {
			return nil, nil, fmt.Errorf("agents.kubernetes %q: %w", k.Cluster, err)
		}
		kubernetes[k.Cluster] = made
	}
	return x509pop, kubernetes, nil
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
	if !ok {
		return handler(ctx, request)
	}
	var by string
	switch {
	case r.GetToken() != nil:
		by = fmt.Sprintf("with token %.40q", r.GetToken().GetId())
	case r.GetX509Pop() != nil:
		by = "with the certificate of its node"
	case r.GetKubernetes() != nil:
		by = fmt.Sprintf("with a token of the Kubernetes cluster %.40q", r.GetKubernetes().GetCluster())
	default:
		return handler(ctx, request)
	}
	attested := record.NewCall(m.store, time.Now)
	attested.Describe(record.Description{
		Caller: "agent at " + port.HostFrom(ctx), Action: "AttestationService/AttestAgent",
		Object: by,
	})
	return handler(attested.Context(ctx), request)
}
