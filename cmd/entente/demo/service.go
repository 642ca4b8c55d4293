package demo

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

const (
	serviceName = "shop"
	leaseTTL    = 10 * time.Second
	leaseEvery  = 2 * time.Second
	callTimeout = 5 * time.Second
)

// service is an instance of the service "shop": an HTTPS server that lets in the callers it knows by their SPIFFE IDs, of
// whichever domain, and is registered with the cluster of its region, which exports it to the other one.
type service struct {
	*workload
	locality *ententev1.Locality
	callers  []spiffeid.ID

	server  *http.Server
	address string
	stop    context.CancelFunc
	running sync.WaitGroup
	once    sync.Once
}

// reply is what the service answers: whom it saw, and by which root it verified that.
type reply struct {
	Service string `json:"service"`
	Caller  string `json:"caller"`
	Anchor  string `json:"anchor"`
}

// open starts the server and registers it with the cluster of its region.
func (w *world) open(identity *workload, zone string, callers ...spiffeid.ID) (*service, error) {
	s := &service{
		workload: identity, callers: callers,
		locality: &ententev1.Locality{Region: identity.region.name, Zone: zone},
	}
	config := tlsconfig.MTLSServerConfig(identity, identity, tlsconfig.AuthorizeOneOf(callers...))
	config.MinVersion = tls.VersionTLS13
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the service of %s: %w", identity.id, err)
	}
	s.address = listener.Addr().String()
	s.server = &http.Server{
		Handler: http.HandlerFunc(s.answer), TLSConfig: config, ReadHeaderTimeout: callTimeout,
		// Its complaints about connections that are cut off would stand between the steps.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	running, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.running.Go(func() { _ = s.server.ServeTLS(listener, "", "") })
	w.onClose(s.close)
	lease, err := s.register(running, identity.region, "")
	if err != nil {
		return nil, err
	}
	s.running.Go(func() { s.keepRenewing(running, identity.region, lease) })
	return s, nil
}

func (s *service) answer(out http.ResponseWriter, r *http.Request) {
	caller, err := x509svid.IDFromCert(r.TLS.PeerCertificates[0])
	if err != nil {
		http.Error(out, err.Error(), http.StatusForbidden)
		return
	}
	anchor, err := s.anchorOf(r.TLS.PeerCertificates)
	if err != nil {
		http.Error(out, err.Error(), http.StatusForbidden)
		return
	}
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(reply{Service: s.id.String(), Caller: caller.String(), Anchor: anchor})
}

// register takes a lease of a cluster and registers the instance under it.
func (s *service) register(ctx context.Context, r *region, secret string) (*held, error) {
	client := ententev1.NewRoutingServiceClient(r.conn)
	stream, err := client.HoldLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("take a lease of the cluster of %s: %w", r.name, err)
	}
	h := &held{stream: stream}
	if err := h.ask(&ententev1.HoldLeaseRequest{Open: &ententev1.OpenLease{Ttl: durationpb.New(leaseTTL), Secret: secret}}); err != nil {
		return nil, fmt.Errorf("take a lease of the cluster of %s: %w", r.name, err)
	}
	_, err = client.RegisterInstance(ctx, &ententev1.RegisterInstanceRequest{Instance: &ententev1.Instance{
		Service: serviceName, Address: s.address, Locality: s.locality, SpiffeId: s.id.String(),
		Health: ententev1.Health_HEALTH_HEALTHY, Lease: h.secret,
	}})
	if err != nil {
		return nil, fmt.Errorf("register %s with the cluster of %s: %w", s.id, r.name, err)
	}
	return h, nil
}

// held is a lease with the stream that keeps it.
type held struct {
	stream ententev1.RoutingService_HoldLeaseClient
	secret string
}

func (h *held) ask(m *ententev1.HoldLeaseRequest) error {
	sent := h.stream.Send(m)
	answer, err := h.stream.Recv()
	if err != nil {
		return err // what ended the stream is in what it receives
	}
	if answer.GetSecret() != "" {
		h.secret = answer.GetSecret()
	}
	return sent
}

func (s *service) keepRenewing(ctx context.Context, r *region, lease *held) {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := lease.ask(&ententev1.HoldLeaseRequest{})
		if err == nil {
			continue
		}
		// The lease is taken up again on a stream of its own; one that is gone is not, but taken anew.
		secret := lease.secret
		if status.Code(err) == codes.NotFound {
			secret = ""
		}
		if again, err := s.register(ctx, r, secret); err == nil {
			lease = again
		} else if status.Code(err) == codes.NotFound {
			lease.secret = ""
		}
	}
}

// withdraw stops the instance as an operator would: it is deregistered, and then closed.
func (s *service) withdraw(ctx context.Context) error {
	s.stop()
	_, err := ententev1.NewRoutingServiceClient(s.region.conn).DeregisterInstance(ctx, &ententev1.DeregisterInstanceRequest{Service: serviceName, Address: s.address})
	if err != nil {
		return fmt.Errorf("deregister %s from the cluster of %s: %w", s.id, s.region.name, err)
	}
	s.close()
	return nil
}

func (s *service) close() {
	s.once.Do(func() {
		s.stop()
		_ = s.server.Close()
		s.running.Wait()
	})
}

// answered is what a call proved.
type answered struct {
	// callerAnchor is the root by which the service verified the caller, serverAnchor the one by which the caller
	// verified the service.
	callerAnchor, serverAnchor string
}

// call sends one request on a connection of its own, so that each call shows the trust of its moment. The server must be
// who the caller expects, and must have seen the caller as who it is.
func (p *workload) call(ctx context.Context, address string, expected spiffeid.ID) (answered, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	config := tlsconfig.MTLSClientConfig(p, p, tlsconfig.AuthorizeID(expected))
	config.MinVersion = tls.VersionTLS13
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/", nil)
	if err != nil {
		return answered{}, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return answered{}, fmt.Errorf("%s calls %s: %w", p.id, expected, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return answered{}, fmt.Errorf("%s calls %s: it answers %s", p.id, expected, answer.Status)
	}
	var seen reply
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<16)).Decode(&seen); err != nil {
		return answered{}, fmt.Errorf("%s calls %s: read the answer: %w", p.id, expected, err)
	}
	if seen.Service != expected.String() || seen.Caller != p.id.String() {
		return answered{}, fmt.Errorf("%s calls %s: %s answered, and saw %s", p.id, expected, seen.Service, seen.Caller)
	}
	anchor, err := p.anchorOf(answer.TLS.PeerCertificates)
	if err != nil {
		return answered{}, err
	}
	return answered{callerAnchor: seen.Anchor, serverAnchor: anchor}, nil
}

// share has each region export the service to the other, and import it from there.
func (s *story) share(ctx context.Context) error {
	for _, pair := range [][2]*region{{s.eu, s.us}, {s.us, s.eu}} {
		here, there := pair[0], pair[1]
		client := ententev1.NewRoutingServiceClient(here.conn)
		_, err := client.ExportService(ctx, &ententev1.ExportServiceRequest{Export: &ententev1.ServiceExport{Service: serviceName, To: there.domain.Name()}})
		if err != nil {
			return fmt.Errorf("export %s from %s to %s: %w", serviceName, here.name, there.name, err)
		}
		_, err = client.ImportService(ctx, &ententev1.ImportServiceRequest{Import: &ententev1.ServiceImport{Name: serviceName, From: there.domain.Name()}})
		if err != nil {
			return fmt.Errorf("import %s into %s from %s: %w", serviceName, here.name, there.name, err)
		}
	}
	return nil
}
