// Command mtls-server is an HTTPS server with an X509-SVID of an Entente cluster. It accepts the callers of one trust
// domain that the cluster trusts, and keeps itself registered as an instance of a service.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

func main() {
	socket := flag.String("socket", "/var/lib/entente/admin.sock", "admin socket of a member")
	id := flag.String("id", "spiffe://dev.example.org/shop", "SPIFFE ID of this server")
	callers := flag.String("callers", "dev.example.org", "trust domain of the callers")
	listen := flag.String("listen", "127.0.0.1:8443", "address to serve on")
	flag.Parse()
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)

	c := must(client.New(ctx, client.WithAdminSocket(*socket))) // or WithAddresses and WithFiles
	source := must(client.NewX509Source(ctx, c, client.X509SourceConfig{ID: spiffeid.RequireFromString(*id)}))
	domain := spiffeid.RequireTrustDomainFromString(*callers)
	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeMemberOf(domain))
	config.MinVersion = tls.VersionTLS13
	listener := must(tls.Listen("tcp", *listen, config))
	lease := must(client.NewLease(ctx, c, client.LeaseConfig{TTL: 10 * time.Second}, &ententev1.Instance{
		Service: "shop", Address: *listen, SpiffeId: *id, Health: ententev1.Health_HEALTH_HEALTHY,
		Locality: &ententev1.Locality{Region: "local", Zone: "local-a"},
	}))
	context.AfterFunc(ctx, func() {
		_ = lease.Close(context.Background()) // callers get no hint to this instance any more
		_ = listener.Close()
	})
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(hello)}
	if err := server.Serve(listener); ctx.Err() == nil {
		log.Fatal(err)
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "Hello, %s.\n", r.TLS.PeerCertificates[0].URIs[0])
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
