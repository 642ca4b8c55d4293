// Command mtls-server is an HTTPS server with an X509-SVID of an Entente cluster. It accepts the callers of one trust
// domain that the cluster trusts, and keeps itself registered as an instance of a service.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

func main() {
	socket := flag.String("socket", "/var/lib/entente/admin.sock", "admin socket of a member")
	id := flag.String("id", "spiffe://dev.example.org/shop", "SPIFFE ID of this server")
	callers := flag.String("callers", "dev.example.org", "trust domain of the callers")
	listen := flag.String("listen", "127.0.0.1:8443", "address to serve on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *socket, *id, *callers, *listen); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, socket, id, callers, listen string) error {
	c, err := client.New(ctx, client.WithAdminSocket(socket)) // or WithAddresses and WithFiles
	if err != nil {
		return err
	}
	defer c.Close()
	source, err := client.NewX509Source(ctx, c, client.X509SourceConfig{ID: spiffeid.RequireFromString(id)})
	if err != nil {
		return err
	}
	defer source.Close()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	lease, err := client.NewLease(ctx, c, client.LeaseConfig{TTL: 10 * time.Second}, &ententev1.Instance{
		Service: "shop", Address: listen, SpiffeId: id, Health: ententev1.Health_HEALTH_HEALTHY,
		Locality: &ententev1.Locality{Region: "local", Zone: "local-a"},
	})
	if err != nil {
		return err
	}
	defer lease.Close(context.WithoutCancel(ctx))

	domain := spiffeid.RequireTrustDomainFromString(callers)
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeMemberOf(domain))
	config.MinVersion = tls.VersionTLS13
	server := &http.Server{TLSConfig: config, Handler: http.HandlerFunc(hello), ReadHeaderTimeout: time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ServeTLS(listener, "", ""); ctx.Err() == nil {
		return err
	}
	return nil
}

func hello(w http.ResponseWriter, r *http.Request) {
	caller, err := x509svid.IDFromCert(r.TLS.PeerCertificates[0])
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, "Hello, %s.\n", caller)
}
