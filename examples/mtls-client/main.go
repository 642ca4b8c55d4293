// Command mtls-client calls the nearest instance of a service over mutual TLS. An Entente cluster gives it an
// X509-SVID, the address of the instance, and the SPIFFE ID that the instance must present.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

func main() {
	socket := flag.String("socket", "/var/lib/entente/admin.sock", "admin socket of a member")
	id := flag.String("id", "spiffe://dev.example.org/web", "SPIFFE ID of this client")
	service := flag.String("service", "shop", "service to call")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	c := must(client.New(ctx, client.WithAdminSocket(*socket))) // or WithAddresses and WithFiles
	source := must(client.NewX509Source(ctx, c, client.X509SourceConfig{ID: spiffeid.RequireFromString(*id)}))
	here := &ententev1.Locality{Region: "local", Zone: "local-a"}
	for hint, err := range c.WatchHint(ctx, *service, here) {
		if len(must(hint, err).GetPriorities()) == 0 {
			continue // until an instance is available
		}
		endpoint := hint.GetPriorities()[0].GetLocalities()[0].GetEndpoints()[0]
		expected := must(spiffeid.FromString(endpoint.GetSpiffeId()))
		config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(expected))
		config.MinVersion = tls.VersionTLS13
		https := http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		response, err := https.Get("https://" + endpoint.GetAddress() + "/")
		if err != nil {
			log.Fatal(err)
		}
		defer response.Body.Close()
		must(io.Copy(os.Stdout, response.Body))
		return
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
