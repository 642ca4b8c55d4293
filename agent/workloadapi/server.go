package workloadapi

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ententehq/entente/agent/cache"
	"github.com/ententehq/entente/bundle"
)

// Server serves the Workload API.
type Server struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	identifier *Identifier
	pushed     func(kind string)
}

// New returns the server. pushed is called after each message of a stream, and may be nil.
func New(identifier *Identifier, pushed func(kind string)) *Server {
	if pushed == nil {
		pushed = func(string) {}
	}
	return &Server{identifier: identifier, pushed: pushed}
}

// follow sends what render makes of the state, first and after each change of it, until the stream or the identity
// ends.
func follow[M proto.Message](
	ctx context.Context, s *Server, method string, render func(cache.State) (M, error), send func(M) error,
) error {
	caller, err := s.identifier.Identify(ctx, method)
	if err != nil {
		return err
	}
	var last [sha256.Size]byte // of the message before, which an idle stream does not keep
	for {
		state, changed, err := s.identifier.Await(ctx, caller, method)
		if err != nil {
			return err
		}
		next, err := render(state)
		if err != nil {
			s.identifier.Logger.Error("a message for a workload could not be made", "pid", caller.Process.PID,
				"method", method, "error", err)
			return status.Error(codes.Internal, "the agent could not make the message: its log has the reason")
		}
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(next)
		if err != nil {
			return status.Errorf(codes.Internal, "encode the message: %v", err)
		}
		if digest := sha256.Sum256(raw); digest != last {
			if err := send(next); err != nil {
				return err
			}
			s.pushed(method)
			last = digest
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-changed:
		}
	}
}

// FetchX509SVID sends the X509-SVIDs of the caller with their bundles.
func (s *Server) FetchX509SVID(
	_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse],
) error {
	return follow(stream.Context(), s, "FetchX509SVID", x509Response, stream.Send)
}

func x509Response(state cache.State) (*workload.X509SVIDResponse, error) {
	out := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
	own := map[string]bool{}
	for _, i := range state.Identities {
		td := i.SVID.ID.TrustDomain().Name()
		b := state.Bundles[td]
		if b == nil {
			continue // the domain is no longer hosted
		}
		own[td] = true
		key, err := x509.MarshalPKCS8PrivateKey(i.SVID.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("encode the key of %s: %w", i.SVID.ID, err)
		}
		out.Svids = append(out.Svids, &workload.X509SVID{
			SpiffeId: i.SVID.ID.String(), X509Svid: join(i.SVID.Certificates), X509SvidKey: key,
			Bundle: join(b.X509Authorities()), Hint: i.Entry.GetHint(),
		})
	}
	for td, b := range state.Bundles {
		if !own[td] {
			out.FederatedBundles[b.TrustDomain().IDString()] = join(b.X509Authorities())
		}
	}
	if len(out.GetSvids()) == 0 {
		return nil, errors.New("the bundles of the workload's trust domains have not arrived")
	}
	return out, nil
}

func join(certificates []*x509.Certificate) []byte {
	raw := make([][]byte, len(certificates))
	for i, c := range certificates {
		raw[i] = c.Raw
	}
	return bytes.Join(raw, nil)
}

// FetchX509Bundles sends the X.509 authorities of the trust domains of the caller, and of those that it federates with.
func (s *Server) FetchX509Bundles(
	_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse],
) error {
	render := func(state cache.State) (*workload.X509BundlesResponse, error) {
		out := &workload.X509BundlesResponse{Bundles: map[string][]byte{}}
		for _, b := range state.Bundles {
			out.Bundles[b.TrustDomain().IDString()] = join(b.X509Authorities())
		}
		return out, nil
	}
	return follow(stream.Context(), s, "FetchX509Bundles", render, stream.Send)
}

// FetchJWTBundles sends the JWT authorities of the same trust domains, as JWKS documents.
func (s *Server) FetchJWTBundles(
	_ *workload.JWTBundlesRequest, stream grpc.ServerStreamingServer[workload.JWTBundlesResponse],
) error {
	render := func(state cache.State) (*workload.JWTBundlesResponse, error) {
		out := &workload.JWTBundlesResponse{Bundles: map[string][]byte{}}
		for _, b := range state.Bundles {
			keys, err := jwks(b)
			if err != nil {
				return nil, err
			}
			out.Bundles[b.TrustDomain().IDString()] = keys
		}
		return out, nil
	}
	return follow(stream.Context(), s, "FetchJWTBundles", render, stream.Send)
}

// jwks returns the JWT authorities of a bundle alone, sorted, so that equal bundles have equal documents.
func jwks(b *bundle.Bundle) ([]byte, error) {
	only, err := b.With(func(c *bundle.Content) {
		c.X509Authorities, c.Sequence, c.RefreshHint = nil, nil, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the JWT keys of %s: %w", b.TrustDomain().Name(), err)
	}
	return only.Marshal(), nil
}

const (
	// maxAudiences and maxToken bound what a workload sends.
	maxAudiences = 16
	maxToken     = 16 << 10
)

// FetchJWTSVID returns a JWT-SVID for each identity of the caller, or for the one that it names.
func (s *Server) FetchJWTSVID(
	ctx context.Context, m *workload.JWTSVIDRequest,
) (*workload.JWTSVIDResponse, error) {
	const method = "FetchJWTSVID"
	if n := len(m.GetAudience()); n == 0 || n > maxAudiences {
		return nil, status.Errorf(codes.InvalidArgument, "audience has %d entries: name 1 to %d", n, maxAudiences)
	}
	caller, err := s.identifier.Identify(ctx, method)
	if err != nil {
		return nil, err
	}
	state, _, err := s.identifier.Await(ctx, caller, method)
	if err != nil {
		return nil, err
	}
	out := &workload.JWTSVIDResponse{}
	for _, i := range state.Identities {
		if id := m.GetSpiffeId(); id != "" && id != i.SVID.ID.String() {
			continue
		}
		token, err := s.identifier.Cache.JWTSVID(ctx, i.Entry, m.GetAudience())
		if err != nil {
			s.identifier.Logger.Warn("a JWT-SVID could not be issued", "pid", caller.Process.PID,
				"uid", caller.Process.UID, "entry", i.Entry.GetId(), "spiffe_id", i.SVID.ID, "error", err)
			if code := status.Code(err); code == codes.InvalidArgument || code == codes.ResourceExhausted {
				return nil, status.Error(code, status.Convert(err).Message())
			}
			return nil, status.Error(codes.Unavailable, "the JWT-SVID could not be issued: the agent's log has the "+
				"reason")
		}
		out.Svids = append(out.Svids, &workload.JWTSVID{
			SpiffeId: i.SVID.ID.String(), Svid: token, Hint: i.Entry.GetHint(),
		})
	}
	if len(out.GetSvids()) == 0 {
		s.identifier.Logger.Warn("a workload requested a JWT-SVID of an ID that it does not have",
			"pid", caller.Process.PID, "uid", caller.Process.UID, "spiffe_id", m.GetSpiffeId())
		return nil, errNoIdentity
	}
	return out, nil
}

// ValidateJWTSVID verifies a JWT-SVID by the bundles that the caller has.
func (s *Server) ValidateJWTSVID(
	ctx context.Context, m *workload.ValidateJWTSVIDRequest,
) (*workload.ValidateJWTSVIDResponse, error) {
	const method = "ValidateJWTSVID"
	switch {
	case m.GetAudience() == "":
		return nil, status.Error(codes.InvalidArgument, "audience is empty: name the one that the token must be for")
	case m.GetSvid() == "" || len(m.GetSvid()) > maxToken:
		return nil, status.Errorf(codes.InvalidArgument, "svid has %d bytes: it is a JWT-SVID of %d at most",
			len(m.GetSvid()), maxToken)
	}
	caller, err := s.identifier.Identify(ctx, method)
	if err != nil {
		return nil, err
	}
	state, _, err := s.identifier.Await(ctx, caller, method)
	if err != nil {
		return nil, err
	}
	svid, err := jwtsvid.ParseAndValidate(m.GetSvid(), jwtBundles(state.Bundles), []string{m.GetAudience()})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	claims, err := structpb.NewStruct(svid.Claims)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the claims of the token: %v", err)
	}
	return &workload.ValidateJWTSVIDResponse{SpiffeId: svid.ID.String(), Claims: claims}, nil
}

// jwtBundles are the bundles of one workload.
type jwtBundles map[string]*bundle.Bundle

// GetJWTBundleForTrustDomain implements jwtbundle.Source.
func (s jwtBundles) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	b := s[td.Name()]
	if b == nil {
		return nil, fmt.Errorf("the workload has no bundle of %s", td.Name())
	}
	return b.GetJWTBundleForTrustDomain(td)
}
