// Package provider is the Terraform provider of Entente: trust domains, federation, access, services and routing of a
// cluster as code. It is a client of the API by package client, and keeps nothing of its own.
//
// A resource is a message of the API. An [attribute] names one of its fields, and whether the configuration or the
// server sets it; a [shape] turns the field into a value of Terraform and back; a [kind] adds the calls that create,
// read, update and delete; [managed] does with them what Terraform requests. A setting that the API adds to a
// relationship becomes an attribute by itself.
//
// An import ID consists of the values of the attributes that tell one resource from another, with commas between. The
// same attributes are its identity.
package provider

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	"github.com/hashicorp/terraform-plugin-framework/function"
	"github.com/hashicorp/terraform-plugin-framework/list"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/ententehq/entente/client"
)

// New returns the provider. version is that of the build.
func New(version string) provider.Provider { return &entente{version: version} }

// providerName begins the names of all resources.
const providerName = "entente"

type entente struct{ version string }

// settings are those of a provider block.
type settings struct {
	Addresses      types.List   `tfsdk:"addresses"`
	Cert           types.String `tfsdk:"cert"`
	Key            types.String `tfsdk:"key"`
	Bundle         types.String `tfsdk:"bundle"`
	Socket         types.String `tfsdk:"socket"`
	WorkloadSocket types.String `tfsdk:"workload_api_socket"`
	TrustDomain    types.String `tfsdk:"trust_domain"`
}

// Metadata implements provider.Provider.
func (p *entente) Metadata(_ context.Context, _ provider.MetadataRequest, w *provider.MetadataResponse) {
	w.TypeName, w.Version = providerName, p.version
}

// Schema implements provider.Provider.
func (p *entente) Schema(_ context.Context, _ provider.SchemaRequest, w *provider.SchemaResponse) {
	text := func(t string) schema.StringAttribute {
		return schema.StringAttribute{Optional: true, MarkdownDescription: t}
	}
	key := text("The private key of the X509-SVID: a file, or PEM. Default: `ENTENTE_KEY`.")
	key.Sensitive = true
	w.Schema = schema.Schema{
		MarkdownDescription: "Trust domains, federation, access, services and routing of an Entente cluster.",
		Attributes: map[string]schema.Attribute{
			"addresses": schema.ListAttribute{
				ElementType: types.StringType, Optional: true,
				MarkdownDescription: "`HOST:PORT` of the cluster ports of members, tried in turn. Default: " +
					"`ENTENTE_ADDRESS`, with commas between.",
			},
			"cert":   text("The X509-SVID of the provider: a file, or PEM. Default: `ENTENTE_CERT`."),
			"key":    key,
			"bundle": text("The bundle of the cluster's home trust domain: a file, or PEM. Default: `ENTENTE_BUNDLE`."),
			"socket": text("The admin socket of a member on this machine, instead of addresses. Default: " +
				"`ENTENTE_SOCKET`."),
			"workload_api_socket": text("The socket of a SPIFFE Workload API as the source of the credentials, " +
				"such as `unix:///run/entente/agent.sock`. Default: `ENTENTE_WORKLOAD_API_SOCKET`."),
			"trust_domain": text("The home trust domain of the cluster; with `workload_api_socket`. Default: " +
				"`ENTENTE_TRUST_DOMAIN`."),
		},
	}
}

// Configure implements provider.Provider.
func (p *entente) Configure(ctx context.Context, c provider.ConfigureRequest, w *provider.ConfigureResponse) {
	var s settings
	w.Diagnostics.Append(c.Config.Get(ctx, &s)...)
	if w.Diagnostics.HasError() {
		return
	}
	var addresses []string
	w.Diagnostics.Append(s.Addresses.ElementsAs(ctx, &addresses, false)...)
	if s.Addresses.IsNull() {
		addresses = split(os.Getenv("ENTENTE_ADDRESS"))
	}
	options, err := connection{
		addresses: addresses, cert: or(s.Cert, "ENTENTE_CERT"), key: or(s.Key, "ENTENTE_KEY"),
		bundle: or(s.Bundle, "ENTENTE_BUNDLE"), socket: or(s.Socket, "ENTENTE_SOCKET"),
		workload: or(s.WorkloadSocket, "ENTENTE_WORKLOAD_API_SOCKET"), home: or(s.TrustDomain, "ENTENTE_TRUST_DOMAIN"),
	}.options(ctx)
	if err != nil {
		w.Diagnostics.AddError("The provider's credentials cannot be used", sentence(err.Error()))
		return
	}
	conn, err := client.New(ctx, options...)
	if err != nil {
		w.Diagnostics.AddError("The provider's credentials cannot be used", sentence(err.Error()))
		return
	}
	data := session{conn, &claims{of: map[string]string{}}}
	w.ResourceData, w.DataSourceData, w.EphemeralResourceData, w.ListResourceData = data, data, data, data
}

// connection is how the provider reaches a cluster.
type connection struct {
	addresses                                 []string
	cert, key, bundle, socket, workload, home string
}

// options returns the options of the client. An explicit socket comes before addresses, as in the command.
func (c connection) options(ctx context.Context) ([]client.Option, error) {
	if c.socket != "" && len(c.addresses) == 0 {
		return []client.Option{client.WithAdminSocket(c.socket)}, nil
	}
	if len(c.addresses) == 0 {
		return nil, errors.New("no cluster is named: set addresses (ENTENTE_ADDRESS) with the credentials, or socket " +
			"(ENTENTE_SOCKET) for a member on this machine")
	}
	options := []client.Option{client.WithAddresses(c.addresses...)}
	if c.workload == "" {
		for _, s := range [][3]string{
			{"cert", "ENTENTE_CERT", c.cert}, {"key", "ENTENTE_KEY", c.key}, {"bundle", "ENTENTE_BUNDLE", c.bundle},
		} {
			if s[2] == "" {
				return nil, fmt.Errorf("the setting %s is missing: set it (%s) to a file or to PEM, or set "+
					"workload_api_socket", s[0], s[1])
			}
		}
		if isPEM(c.cert) || isPEM(c.key) || isPEM(c.bundle) {
			return append(options, client.WithPEM(c.load)), nil
		}
		return append(options, client.WithFiles(c.cert, c.key, c.bundle)), nil
	}
	home, err := spiffeid.TrustDomainFromString(c.home)
	if err != nil {
		return nil, err
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(c.workload)))
	if err != nil {
		return nil, err
	}
	return append(options, client.WithSource(home, source, source)), nil
}

// load returns credentials of which some are files, which are read again at each handshake.
func (c connection) load() (client.PEM, error) {
	var all client.PEM
	for from, to := range map[*string]*[]byte{&c.cert: &all.Certificate, &c.key: &all.Key, &c.bundle: &all.Bundle} {
		*to = []byte(*from)
		if !isPEM(*from) {
			content, err := os.ReadFile(*from)
			if err != nil {
				return client.PEM{}, err
			}
			*to = content
		}
	}
	return all, nil
}

func isPEM(text string) bool { return strings.Contains(text, "-----BEGIN ") }

// or returns a setting, or else a variable of the environment.
func or(setting types.String, variable string) string {
	if setting.IsNull() {
		return os.Getenv(variable)
	}
	return setting.ValueString()
}

func split(list string) (parts []string) {
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

// session is what one configuration of the provider shares.
type session struct {
	client *client.Client
	*claims
}

// claims has the kind of resource that each foreign trust domain has in the plan.
type claims struct {
	mu sync.Mutex
	of map[string]string
}

// claim records the kind of the resource that a plan has for a trust domain, and returns another one that it has too,
// or "". A domain that is not known yet is left to the server.
func (c *claims) claim(td, kind string) (other string) {
	if c == nil || td == "" {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[td] == "" {
		c.of[td] = kind
	}
	if c.of[td] == kind {
		return ""
	}
	return c.of[td]
}

// configured returns what Configure made. Terraform validates before it configures; then there is nothing.
func configured(data any, d *diag.Diagnostics) session {
	if data == nil {
		return session{}
	}
	s, ok := data.(session)
	if !ok {
		d.AddError("The provider is not configured", "This is a defect of the provider.")
	}
	return s
}

// Resources implements provider.Provider.
func (p *entente) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{
		resourceOf(trustDomain), resourceOf(relationship), resourceOf(accessGrant), resourceOf(routingRule),
		resourceOf(serviceExport), resourceOf(serviceImport), resourceOf(serviceInstance), resourceOf(service),
		resourceOf(federationInvitation), resourceOf(federationAgreement), resourceOf(joinToken),
		resourceOf(registrationEntry),
	}
}

// DataSources implements provider.Provider.
func (p *entente) DataSources(context.Context) []func() datasource.DataSource { return dataSources() }

// Functions implements provider.ProviderWithFunctions.
func (p *entente) Functions(context.Context) []func() function.Function { return functions() }

// EphemeralResources implements provider.ProviderWithEphemeralResources.
func (p *entente) EphemeralResources(context.Context) []func() ephemeral.EphemeralResource {
	return ephemerals()
}

// ListResources implements provider.ProviderWithListResources.
func (p *entente) ListResources(context.Context) []func() list.ListResource {
	return []func() list.ListResource{listOf(relationship), listOf(accessGrant), listOf(service)}
}

var (
	_ provider.ProviderWithListResources      = (*entente)(nil)
	_ provider.ProviderWithFunctions          = (*entente)(nil)
	_ provider.ProviderWithEphemeralResources = (*entente)(nil)
)
