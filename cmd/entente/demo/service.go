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

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

const (
	serviceName = "shop"
	leaseTTL    = 10 * time.Second
	callTimeout = 5 * time.Second
)

// service is an instance of the service "shop": an HTTPS server that accepts the callers with given SPIFFE IDs, of any
// domain. It is registered with the cluster of its region, which exports it to the other one.
type service struct {
	*workload
	locality *ententev1.Locality
	callers  []spiffeid.ID

	server  *http.Server
	address string
	lease   *client.Lease
	running sync.WaitGroup
	once    sync.Once
}

// reply is the response of the service: the ID of the caller, and the root that verified it.
type reply struct {
	Service string `json:"service"`
	Caller  string `json:"caller"`
	Anchor  string `json:"anchor"`
}

// open starts the server and registers it with the cluster of its region.
func (w *world) open(ctx context.Context, identity *workload, zone string, callers ...spiffeid.ID) (*service, error) {
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
		// Its warnings about closed connections would be printed between the steps.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	s.running.Go(func() { _ = s.server.ServeTLS(listener, "", "") })
	w.onClose(s.close)
	s.lease, err = client.NewLease(ctx, identity.region.conn, client.LeaseConfig{TTL: leaseTTL}, &ententev1.Instance{
		Service: serviceName, Address: s.address, Locality: s.locality, SpiffeId: s.id.String(),
		Health: ententev1.Health_HEALTH_HEALTHY,
	})
	if err != nil {
		return nil, fmt.Errorf("register %s with the cluster of %s: %w", s.id, identity.region.name, err)
	}
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

// withdraw stops the instance as an operator does: it is deregistered, and then closed.
func (s *service) withdraw(ctx context.Context) error {
	if err := s.lease.Close(ctx); err != nil {
		return fmt.Errorf("deregister %s from the cluster of %s: %w", s.id, s.region.name, err)
	}
	s.close()
	return nil
}

// close stops the server. A lease that is not withdrawn runs out.
func (s *service) close() {
	s.once.Do(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		if s.lease != nil {
			_ = s.lease.Close(ended)
		}
		_ = s.server.Close()
		s.running.Wait()
	})
}

// verified is what a call proved.
type verified struct {
	// callerAnchor is the root by which the service verified the caller, serverAnchor the one by which the caller
	// verified the service.
	callerAnchor, serverAnchor string
}

// call sends one request on a new connection, so that each call depends on the trust of its moment. The server must
// have the expected ID, and must return the ID of the caller.
func (p *workload) call(ctx context.Context, address string, expected spiffeid.ID) (verified, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	config := tlsconfig.MTLSClientConfig(p, p, tlsconfig.AuthorizeID(expected))
	config.MinVersion = tls.VersionTLS13
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/", nil)
	if err != nil {
		return verified{}, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return verified{}, fmt.Errorf("%s calls %s: %w", p.id, expected, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return verified{}, fmt.Errorf("%s calls %s: the response is %s", p.id, expected, answer.Status)
	}
	var seen reply
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<16)).Decode(&seen); err != nil {
		return verified{}, fmt.Errorf("%s calls %s: read the response: %w", p.id, expected, err)
	}
	if seen.Service != expected.String() || seen.Caller != p.id.String() {
		return verified{}, fmt.Errorf(
			"%s calls %s: %s responded, and verified the caller as %s", p.id, expected, seen.Service, seen.Caller,
		)
	}
	anchor, err := p.anchorOf(answer.TLS.PeerCertificates)
	if err != nil {
		return verified{}, err
	}
	return verified{callerAnchor: seen.Anchor, serverAnchor: anchor}, nil
}

// share exports the service from each region to the other, and imports it there.
func (s *story) share(ctx context.Context) error {
	for _, pair := range [][2]*region{{s.eu, s.us}, {s.us, s.eu}} {
		here, there := pair[0], pair[1]
		client := here.conn.Routing()
		_, err := client.ExportService(
			ctx,
			&ententev1.ExportServiceRequest{
				Export: &ententev1.ServiceExport{Service: serviceName, To: there.domain.Name()},
			},
		)
		if err != nil {
			return fmt.Errorf("export %s from %s to %s: %w", serviceName, here.name, there.name, err)
		}
		_, err = client.ImportService(
			ctx,
			&ententev1.ImportServiceRequest{
				Import: &ententev1.ServiceImport{Name: serviceName, From: there.domain.Name()},
			},
		)
		if err != nil {
			return fmt.Errorf("import %s into %s from %s: %w", serviceName, here.name, there.name, err)
		}
	}
	return nil
}
