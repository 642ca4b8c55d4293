package registration

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/registration/agenttoken"
	"github.com/ententehq/entente/registration/nodeattest"
	"github.com/ententehq/entente/registration/possession"
)

// attestationService serves entente.v1.AttestationService.
type attestationService struct {
	ententev1.UnimplementedAttestationServiceServer
	room *Room
}

// AttestationService returns the service that admits agents, for callers without a certificate.
func (r *Room) AttestationService() ententev1.AttestationServiceServer {
	return &attestationService{room: r}
}

// byToken is the name of the attestation by a token, also in selectors.
const byToken = "join_token"

// AttestAgent issues an agent its SVID: by the key that it was attested with before, or else by a token.
func (s *attestationService) AttestAgent(
	ctx context.Context, m *ententev1.AttestAgentRequest,
) (*ententev1.AttestAgentResponse, error) {
	key, err := s.room.parseCSR(m.GetCsr())
	if err != nil {
		return nil, err
	}
	binding, ok := s.room.cfg.Binding(ctx)
	if !ok {
		return nil, status.Error(codes.FailedPrecondition, "agents attest themselves under entente-join/1 alone")
	}
	if !agenttoken.Proved(key, binding, m.GetProof()) {
		return nil, status.Error(codes.PermissionDenied,
			"proof is not the signature of the agent's key over this TLS session")
	}
	identity, err := agenttoken.Identity(key)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	name, err := s.known(ctx, identity)
	if err == nil && name == "" {
		name, err = s.admit(ctx, m, binding, identity)
	}
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	svid, err := s.room.issueAgent(ctx, name, key, m.GetCsr())
	if err != nil {
		return nil, err
	}
	id, err := AgentID(s.room.cfg.Home, name)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &ententev1.AttestAgentResponse{Svid: svid, SpiffeId: id.String(), Servers: s.room.servers()}, nil
}

// known returns the name of the agent with a key, or "". A member that is behind asks the leader before it finds none,
// within the rate of the address.
func (s *attestationService) known(ctx context.Context, identity [32]byte) (string, error) {
	name, err := byIdentity(s.room.cfg.Store.View(), identity)
	if err != nil || name != "" {
		return name, err
	}
	if err := s.room.limits.admit(s.room.cfg.Origin(ctx), s.room.cfg.Now()); err != nil {
		return "", err
	}
	view, err := s.room.cfg.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return "", err
	}
	return byIdentity(view, identity)
}

// ProveMember proves that this member has its X509-SVID.
func (s *attestationService) ProveMember(
	ctx context.Context, _ *ententev1.ProveMemberRequest,
) (*ententev1.ProveMemberResponse, error) {
	binding, ok := s.room.cfg.Binding(ctx)
	if !ok {
		return nil, status.Error(codes.FailedPrecondition, "members prove themselves under entente-join/1 alone")
	}
	own, err := s.room.cfg.Certificate()
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "this member has no X509-SVID now: %v", err)
	}
	key, ok := own.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, status.Error(codes.Internal, "the key of this member's X509-SVID cannot sign")
	}
	signature, err := possession.Prove(possession.OfMember, key, binding, nil)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "prove this member: %v", err)
	}
	return &ententev1.ProveMemberResponse{Certificates: own.Certificate, Signature: signature}, nil
}

// admit makes the agent that evidence shows.
func (s *attestationService) admit(
	ctx context.Context, m *ententev1.AttestAgentRequest, binding []byte, identity [32]byte,
) (string, error) {
	var node nodeattest.Node
	var err error
	switch {
	case m.GetToken() != nil:
		return s.redeem(ctx, m.GetToken(), identity)
	case m.GetX509Pop() != nil:
		if s.room.cfg.X509PoP == nil {
			return "", notConfigured("x509pop", "agents { x509pop { … } }")
		}
		node, err = s.room.cfg.X509PoP.Verify(m.GetX509Pop(), binding, identity, s.room.cfg.Now())
	case m.GetKubernetes() != nil:
		of := s.room.cfg.Kubernetes[m.GetKubernetes().GetCluster()]
		if of == nil {
			return "", notConfigured(fmt.Sprintf("the Kubernetes cluster %.80q", m.GetKubernetes().GetCluster()),
				"agents { kubernetes \"NAME\" { … } }")
		}
		node, err = of.Verify(ctx, m.GetKubernetes().GetToken(), s.room.cfg.Origin(ctx), s.room.cfg.Now())
	default:
		return "", status.Error(codes.PermissionDenied, "no agent has this key: it was evicted, or never attested; "+
			"give it a token, and "+newToken)
	}
	if errors.As(err, new(*nodeattest.Refusal)) {
		return "", status.Error(codes.PermissionDenied, err.Error())
	}
	if err != nil {
		return "", status.Error(codes.Unavailable, err.Error())
	}
	return node.Name, s.enroll(ctx, node, identity)
}

func notConfigured(what, how string) error {
	return status.Errorf(codes.FailedPrecondition, "this member attests no agents by %s: configure it with %s on "+
		"every member", what, how)
}

// enroll makes the agent of a node, in the place of the one that the same kind of evidence has shown before, at most
// once a minute.
func (s *attestationService) enroll(ctx context.Context, node nodeattest.Node, identity [32]byte) error {
	now := s.room.cfg.Now()
	_, err := s.room.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := unused(tx, identity); err != nil {
			return err
		}
		row, found, err := agents.Get(tx, node.Name)
		switch {
		case err != nil:
			return err
		case found && (row.Value.GetBan() != nil || row.Value.GetAttestation() != node.Attestation):
			return free(tx, node.Name)
		case found:
			age := now.Sub(row.Value.GetAttestTime().AsTime()).Abs() // by the clock of another member
			if age < evidenceEvery {
				return exhausted(evidenceEvery-age, "agent %s was attested with another key less than %s ago; "+
					"its evidence makes one agent in that time", node.Name, evidenceEvery)
			}
			if err := deleteAgent(tx, row.Value); err != nil {
				return err
			}
		default:
			if n := s.room.index.nodes(); n >= maxAgents {
				return tooManyAgents(n)
			}
		}
		if err := s.room.limits.enroll(now); err != nil {
			return err
		}
		if err := evicted.Delete(tx, node.Name); err != nil {
			return err
		}
		return s.room.putAgent(tx, &statev1.Agent{
			Name: node.Name, Identity: identity[:], Attestation: node.Attestation, AttestTime: timestamppb.New(now),
			Selectors: append([]string{
				"agent:attestation:" + node.Attestation, "agent:name:" + node.Name,
			}, node.Selectors...),
		})
	})
	return err
}

// unused returns an error if an agent has a key.
func unused(tx *raftstore.Tx, identity [32]byte) error {
	of, err := byIdentity(tx, identity)
	if err == nil && of != "" {
		err = status.Errorf(codes.AlreadyExists, "agent %s is attested with this key: each agent makes a key of its "+
			"own; move data_dir of this one away, so that it does", of)
	}
	return err
}

const newToken = "make a new one with 'entente agent token' on a member"

// redeem makes the agent of a token.
func (s *attestationService) redeem(
	ctx context.Context, evidence *ententev1.AgentTokenEvidence, identity [32]byte,
) (name string, err error) {
	void := status.Error(codes.PermissionDenied, "this cluster has no such token for an agent: it was used, "+
		"replaced by "+
		"a newer one, void after a restore or the removal of a member, or it has expired; "+newToken)
	if !token.IsID(evidence.GetId()) {
		return "", void
	}
	_, err = s.room.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := agentTokens.Get(tx, evidence.GetId())
		if err != nil {
			return err
		}
		now := s.room.cfg.Now()
		if !found || !token.Proves(evidence.GetSecret(), row.Value.GetSecretSha256()) ||
			!now.Before(row.Value.GetExpireTime().AsTime()) {
			return void
		}
		name = row.Value.GetAgent()
		if err := s.authorOf(tx, row.Value); err != nil {
			return err
		}
		if err := unused(tx, identity); err != nil {
			return err
		}
		if err := free(tx, name); err != nil {
			return err
		}
		if err := agentTokens.Delete(tx, evidence.GetId()); err != nil {
			return err
		}
		if err := evicted.Delete(tx, name); err != nil {
			return err
		}
		return s.room.putAgent(tx, &statev1.Agent{
			Name: name, Identity: identity[:], Attestation: byToken, AttestTime: timestamppb.New(now),
			Selectors: []string{"agent:attestation:" + byToken, "agent:name:" + name},
		})
	})
	return name, err
}

// authorOf returns an error if whoever made a token may not admit agents any more.
func (s *attestationService) authorOf(r raftstore.Reader, t *statev1.AgentToken) error {
	err := s.room.cfg.AuthorMay(r, t.GetCreatedBy(), ententev1.AgentService_CreateAgentToken_FullMethodName,
		&ententev1.CreateAgentTokenRequest{Agent: t.GetAgent()})
	if errors.As(err, new(*access.Refusal)) {
		return status.Errorf(codes.PermissionDenied, "the token was made by %s, who may not admit agents any more: "+
			"an administrator makes a new one with 'entente agent token %s'", t.GetCreatedBy(), t.GetAgent())
	}
	return err
}

// parseCSR returns the key of an agent's certificate request.
func (r *Room) parseCSR(der []byte) (*ecdsa.PublicKey, error) {
	key, err := r.cfg.ParseCSR(der)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return keyOf(key)
}

// issueAgent signs the SVID of an agent for its own key.
func (r *Room) issueAgent(
	ctx context.Context, name string, key *ecdsa.PublicKey, csr []byte,
) (*ententev1.IssueX509SVIDResponse, error) {
	row, found, err := agents.Get(r.cfg.Store.View(), name)
	if err == nil && !found { // this member is behind
		var view *raftstore.View
		if view, err = r.cfg.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true}); err == nil {
			row, found, err = agents.Get(view, name)
		}
	}
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	identity, err := agenttoken.Identity(key)
	switch {
	case err != nil:
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case !found || string(row.Value.GetIdentity()) != string(identity[:]):
		return nil, status.Errorf(codes.PermissionDenied,
			"agent %s was attested with another key, or was evicted", name)
	case row.Value.GetBan() != nil:
		return nil, status.Errorf(codes.PermissionDenied, "agent %s is banned; an operator ends that with 'entente "+
			"agent "+
			"evict %s'", name, name)
	}
	id, err := AgentID(r.cfg.Home, name)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	by := access.CallerFrom(ctx).String()
	if _, ok := access.CallerFrom(ctx).SPIFFEID(); !ok {
		by = fmt.Sprintf("agent %s by its key %x", name, identity[:8])
	}
	return r.cfg.Signer.IssueAgentX509(ctx, id, csr, by)
}
