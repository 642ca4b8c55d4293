package sds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/ententehq/entente/agent/cache"
	"github.com/ententehq/entente/agent/workloadapi"
)

// Server serves SDS.
type Server struct {
	secret.UnimplementedSecretDiscoveryServiceServer
	identifier *workloadapi.Identifier
	names      Names
	pushed     func(kind string)
}

// New returns the server. pushed is called after each message of a stream, and may be nil.
func New(identifier *workloadapi.Identifier, names Names, pushed func(kind string)) *Server {
	if pushed == nil {
		pushed = func(string) {}
	}
	return &Server{identifier: identifier, names: names, pushed: pushed}
}

// maxNames bounds the names of one stream.
const maxNames = 1024

var errTooManyNames = grpcstatus.Errorf(codes.InvalidArgument, "more than %d names are requested", maxNames)

// received is a message of a stream, or the error that ended it.
type received[M any] struct {
	message M
	err     error
}

// receive returns the messages of a stream, until one of them is an error or ctx ends.
func receive[M any](ctx context.Context, recv func() (M, error)) <-chan received[M] {
	messages := make(chan received[M])
	go func() { // it ends with the stream, whose context ends when the handler returns
		for {
			m, err := recv()
			select {
			case messages <- received[M]{m, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return messages
}

// subscription is what a stream has requested, and what it has.
type subscription struct {
	names    []string
	wildcard bool
	sent     map[string]string // the versions of resources by name
	version  string            // of everything that was sent
	nonce    uint64
}

func (s *subscription) next() string {
	s.nonce++
	return strconv.FormatUint(s.nonce, 10)
}

// versionOf returns a version of several resources.
func versionOf(resources []resource) string {
	sum := sha256.New()
	for _, r := range resources {
		sum.Write([]byte(r.name + "\x00" + r.version + "\x00"))
	}
	return hex.EncodeToString(sum.Sum(nil)[:12])
}

func (s *Server) rejected(caller workloadapi.Caller, detail *status.Status) {
	s.identifier.Logger.Warn("a proxy rejected secrets and keeps those that it has", "pid", caller.Process.PID,
		"uid", caller.Process.UID, "reason", detail.GetMessage())
}

// StreamSecrets sends all requested secrets whenever one of them has changed.
func (s *Server) StreamSecrets(stream secret.SecretDiscoveryService_StreamSecretsServer) error {
	const method = "StreamSecrets"
	ctx := stream.Context()
	caller, err := s.identifier.Identify(ctx, method)
	if err != nil {
		return err
	}
	requests := receive(ctx, stream.Recv)
	sub := subscription{}
	requested := false
	var changed <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return grpcstatus.FromContextError(ctx.Err()).Err()
		case r := <-requests:
			if r.err != nil {
				return r.err
			}
			m := r.message
			if m.GetResponseNonce() != "" && m.GetResponseNonce() != strconv.FormatUint(sub.nonce, 10) {
				continue // about an earlier response
			}
			if m.GetErrorDetail() != nil {
				s.rejected(caller, m.GetErrorDetail())
			}
			if len(m.GetResourceNames()) > maxNames {
				return errTooManyNames
			}
			same := slices.Equal(sub.names, m.GetResourceNames())
			if requested && same {
				continue // an acknowledgement
			}
			requested, sub.names, sub.wildcard = true, m.GetResourceNames(), len(m.GetResourceNames()) == 0
			sub.version = ""
		case <-changed:
		}
		state, next, err := s.identifier.Await(ctx, caller, method)
		if err != nil {
			return err
		}
		changed = next
		if err := s.send(stream, &sub, state); err != nil {
			return err
		}
	}
}

func (s *Server) send(
	stream secret.SecretDiscoveryService_StreamSecretsServer, sub *subscription, state cache.State,
) error {
	resources, err := s.names.resources(state, sub.names, sub.wildcard)
	if err != nil {
		return grpcstatus.Error(codes.Internal, err.Error())
	}
	version := versionOf(resources)
	if version == sub.version {
		return nil
	}
	out := &discovery.DiscoveryResponse{VersionInfo: version, TypeUrl: typeURL, Nonce: sub.next()}
	for _, r := range resources {
		out.Resources = append(out.Resources, r.body)
	}
	if err := stream.Send(out); err != nil {
		return err
	}
	sub.version = version
	s.pushed("StreamSecrets")
	return nil
}

// DeltaSecrets sends the requested secrets that have changed.
func (s *Server) DeltaSecrets(stream secret.SecretDiscoveryService_DeltaSecretsServer) error {
	const method = "DeltaSecrets"
	ctx := stream.Context()
	caller, err := s.identifier.Identify(ctx, method)
	if err != nil {
		return err
	}
	requests := receive(ctx, stream.Recv)
	sub := subscription{sent: map[string]string{}}
	requested, force := false, false
	var changed <-chan struct{}
	for {
		select {
		case <-ctx.Done():
			return grpcstatus.FromContextError(ctx.Err()).Err()
		case r := <-requests:
			if r.err != nil {
				return r.err
			}
			m := r.message
			if m.GetErrorDetail() != nil {
				s.rejected(caller, m.GetErrorDetail())
			}
			if sub.exceeds(m) {
				return errTooManyNames
			}
			if !requested {
				sub.wildcard = len(m.GetResourceNamesSubscribe()) == 0
				for name, version := range m.GetInitialResourceVersions() {
					sub.sent[name] = version
				}
			}
			if requested && len(m.GetResourceNamesSubscribe()) == 0 && len(m.GetResourceNamesUnsubscribe()) == 0 {
				continue // an acknowledgement
			}
			sub.subscribe(m)
			force, requested = !requested, true
		case <-changed:
		}
		state, next, err := s.identifier.Await(ctx, caller, method)
		if err != nil {
			return err
		}
		changed = next
		if err := s.sendDelta(stream, &sub, state, force); err != nil {
			return err
		}
		force = false
	}
}

// exceeds reports whether a request has more names than a stream may, before any work is done for one of them.
func (s *subscription) exceeds(m *discovery.DeltaDiscoveryRequest) bool {
	return len(s.names)+len(m.GetResourceNamesSubscribe()) > maxNames ||
		len(m.GetResourceNamesUnsubscribe()) > maxNames || len(m.GetInitialResourceVersions()) > maxNames
}

// subscribe takes over the names of a request. A name that is subscribed again is sent again.
func (s *subscription) subscribe(m *discovery.DeltaDiscoveryRequest) {
	const all = "*"
	for _, name := range m.GetResourceNamesSubscribe() {
		if name == all {
			s.wildcard = true
			continue
		}
		if !slices.Contains(s.names, name) {
			s.names = append(s.names, name)
		}
		if _, initial := m.GetInitialResourceVersions()[name]; !initial {
			delete(s.sent, name)
		}
	}
	for _, name := range m.GetResourceNamesUnsubscribe() {
		if name == all {
			s.wildcard = false
			continue
		}
		s.names = slices.DeleteFunc(s.names, func(n string) bool { return n == name })
		delete(s.sent, name)
	}
}

// sendDelta sends what differs from what the proxy has. If force is set, it sends also if nothing does: the first
// request has an answer.
func (s *Server) sendDelta(
	stream secret.SecretDiscoveryService_DeltaSecretsServer, sub *subscription, state cache.State, force bool,
) error {
	resources, err := s.names.resources(state, sub.names, sub.wildcard)
	if err != nil {
		return grpcstatus.Error(codes.Internal, err.Error())
	}
	out := &discovery.DeltaDiscoveryResponse{SystemVersionInfo: versionOf(resources), TypeUrl: typeURL}
	present := map[string]bool{}
	for _, r := range resources {
		present[r.name] = true
		if sub.sent[r.name] != r.version {
			out.Resources = append(out.Resources, &discovery.Resource{
				Name: r.name, Version: r.version, Resource: r.body,
			})
			sub.sent[r.name] = r.version
		}
	}
	for name := range sub.sent {
		if !present[name] {
			out.RemovedResources = append(out.RemovedResources, name)
			delete(sub.sent, name)
		}
	}
	slices.Sort(out.GetRemovedResources())
	if len(out.GetResources()) == 0 && len(out.GetRemovedResources()) == 0 && !force {
		return nil
	}
	out.Nonce = sub.next()
	if err := stream.Send(out); err != nil {
		return err
	}
	s.pushed("DeltaSecrets")
	return nil
}

// FetchSecrets returns the requested secrets once.
func (s *Server) FetchSecrets(
	ctx context.Context, m *discovery.DiscoveryRequest,
) (*discovery.DiscoveryResponse, error) {
	const method = "FetchSecrets"
	if len(m.GetResourceNames()) > maxNames {
		return nil, errTooManyNames
	}
	caller, err := s.identifier.Identify(ctx, method)
	if err != nil {
		return nil, err
	}
	state, _, err := s.identifier.Await(ctx, caller, method)
	if err != nil {
		return nil, err
	}
	resources, err := s.names.resources(state, m.GetResourceNames(), len(m.GetResourceNames()) == 0)
	if err != nil {
		return nil, grpcstatus.Error(codes.Internal, err.Error())
	}
	out := &discovery.DiscoveryResponse{VersionInfo: versionOf(resources), TypeUrl: typeURL}
	for _, r := range resources {
		out.Resources = append(out.Resources, r.body)
	}
	return out, nil
}
