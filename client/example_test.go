package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/node/nodetest"
)

// member is the cluster of the examples. A program uses the addresses or the socket of its own cluster.
var member *nodetest.Member

func TestMain(m *testing.M) {
	var err error
	if member, err = nodetest.Start(); err != nil {
		log.Fatal(err)
	}
	status := m.Run()
	if err := member.Close(); err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}

// administrator returns a client with the rights of the local administrator.
func administrator(ctx context.Context) *client.Client {
	c, err := client.New(ctx, client.WithAdminSocket(member.Socket))
	if err != nil {
		log.Fatal(err)
	}
	return c
}

var (
	home = spiffeid.RequireTrustDomainFromString("dev.example.org")
	web  = spiffeid.RequireFromString("spiffe://dev.example.org/web")
)

// A client of the admin socket lists the members.
func ExampleNew() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.New(ctx, client.WithAdminSocket(member.Socket))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	list, err := c.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range list.GetMembers() {
		fmt.Println(m.GetId(), "in", m.GetRegion())
	}
	// Output: dev-1 in local
}

// A client connects over the network with the SVID of a source, which renews it.
func ExampleWithSource() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	admin := administrator(ctx)
	defer admin.Close()
	source, err := client.NewX509Source(ctx, admin, client.X509SourceConfig{ID: web})
	if err != nil {
		log.Fatal(err)
	}
	defer source.Close()

	_, err = admin.Access().GrantRole(ctx, &ententev1.GrantRoleRequest{Grant: &ententev1.Grant{
		Role: ententev1.Role_ROLE_READER, SpiffeId: web.String(), TrustDomain: home.Name(),
	}})
	if err != nil {
		log.Fatal(err)
	}

	c, err := client.New(ctx, client.WithAddresses(member.Address), client.WithSource(home, source, source))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	b, err := c.Bundles().GetBundle(ctx, &ententev1.GetBundleRequest{TrustDomain: home.Name()})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(b.GetTrustDomain(), "is hosted:", b.GetHosted())
	// Output: dev.example.org is hosted: true
}

// A source provides the SVID and the bundles of a TLS server, and renews them.
func ExampleNewX509Source() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := administrator(ctx)
	defer c.Close()
	source, err := client.NewX509Source(ctx, c, client.X509SourceConfig{
		ID:      web,
		TTL:     10 * time.Minute,
		OnEvent: func(e client.Event) { log.Print("the SVID ", e.Message, " ", e.Err) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer source.Close()

	config := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeMemberOf(home))
	fmt.Println("client certificates:", config.ClientAuth)
	svid, err := source.GetX509SVID()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("presents", svid.ID)
	// Output:
	// client certificates: RequireAnyClientCert
	// presents spiffe://dev.example.org/web
}

// A source keeps the bundles of all trust domains fresh.
func ExampleNewBundleSource() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := administrator(ctx)
	defer c.Close()
	source, err := client.NewBundleSource(ctx, c, client.BundleSourceConfig{})
	if err != nil {
		log.Fatal(err)
	}
	defer source.Close()
	for _, b := range source.Bundles() {
		fmt.Println(b.TrustDomain().Name(), len(b.X509Authorities()))
	}
	_, err = source.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString("us.example.org"))
	fmt.Println(err)
	// Output:
	// dev.example.org 1
	// the cluster has no bundle of us.example.org for this caller
}

// A lease keeps an instance registered until it is closed.
func ExampleNewLease() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := administrator(ctx)
	defer c.Close()
	lease, err := client.NewLease(ctx, c, client.LeaseConfig{TTL: 10 * time.Second}, &ententev1.Instance{
		Service: "books", Address: "10.0.0.1:443", SpiffeId: web.String(), Health: ententev1.Health_HEALTH_HEALTHY,
		Locality: &ententev1.Locality{Region: "local", Zone: "local-a"},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := lease.SetHealth(ctx, "books", "10.0.0.1:443", ententev1.Health_HEALTH_DRAINING); err != nil {
		log.Fatal(err)
	}
	service, err := c.Routing().GetService(ctx, &ententev1.GetServiceRequest{Name: "books"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(service.GetInstances()[0].GetAddress(), service.GetInstances()[0].GetHealth())
	if err := lease.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: 10.0.0.1:443 HEALTH_DRAINING
}

// A hint is followed until an instance is available.
func ExampleClient_WatchHint() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := administrator(ctx)
	defer c.Close()
	here := &ententev1.Locality{Region: "local", Zone: "local-a"}
	var lease *client.Lease
	for hint, err := range c.WatchHint(ctx, "shop", here) {
		if err != nil {
			log.Fatal(err)
		}
		if len(hint.GetPriorities()) > 0 {
			first := hint.GetPriorities()[0].GetLocalities()[0].GetEndpoints()[0]
			fmt.Println("call", first.GetAddress(), "and expect", first.GetSpiffeId())
			break
		}
		fmt.Println("no instance yet")
		lease, err = client.NewLease(ctx, c, client.LeaseConfig{TTL: 10 * time.Second}, &ententev1.Instance{
			Service: "shop", Address: "10.0.0.2:443", SpiffeId: web.String(), Health: ententev1.Health_HEALTH_HEALTHY,
			Locality: here,
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := lease.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// no instance yet
	// call 10.0.0.2:443 and expect spiffe://dev.example.org/web
}

// Errors are compared with the kinds of this package.
func ExampleError() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := administrator(ctx)
	defer c.Close()
	_, err := c.Domains().GetDomain(ctx, &ententev1.GetDomainRequest{TrustDomain: "pay.example.org"})
	fmt.Println(errors.Is(err, client.ErrNotFound))

	_, err = c.Domains().CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{}})
	var failed *client.Error
	if errors.As(err, &failed) {
		fmt.Println(failed.Reason(), failed.Field())
	}
	// Output:
	// true
	// INVALID_ARGUMENT domain.trust_domain
}
