package acceptance

import (
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/terraform/provider"
)

// server is the provider as Terraform calls it. Import by identity and terraform query need a later terraform than the
// tests run, and are tested here.
type server struct {
	*workspace
	tfprotov6.ProviderServer
	schemas *tfprotov6.GetProviderSchemaResponse
}

func newServer(t *testing.T) server {
	w := newWorkspace(t)
	p, err := providerserver.NewProtocol6WithError(provider.New("test"))()
	require.NoError(t, err)
	s := server{workspace: w, ProviderServer: p}
	s.schemas, err = p.GetProviderSchema(t.Context(), &tfprotov6.GetProviderSchemaRequest{})
	require.NoError(t, err)
	s.good(s.schemas.Diagnostics)
	of := s.schemas.Provider.ValueType().(tftypes.Object)
	settings := nulls(of)
	settings["socket"] = tftypes.NewValue(tftypes.String, w.member.Socket)
	configured, err := p.ConfigureProvider(t.Context(),
		&tfprotov6.ConfigureProviderRequest{Config: s.dynamic(of, tftypes.NewValue(of, settings))})
	require.NoError(t, err)
	s.good(configured.Diagnostics)
	return s
}

// nulls returns an object without a value.
func nulls(of tftypes.Object) map[string]tftypes.Value {
	values := map[string]tftypes.Value{}
	for name, each := range of.AttributeTypes {
		values[name] = tftypes.NewValue(each, nil)
	}
	return values
}

func (s server) good(all []*tfprotov6.Diagnostic) {
	s.Helper()
	for _, d := range all {
		require.Fail(s, d.Summary, d.Detail)
	}
}

func (s server) dynamic(of tftypes.Type, v tftypes.Value) *tfprotov6.DynamicValue {
	s.Helper()
	d, err := tfprotov6.NewDynamicValue(of, v)
	require.NoError(s, err)
	return &d
}

// texts returns the attributes of a value that are texts.
func (s server) texts(of tftypes.Type, d *tfprotov6.DynamicValue) map[string]string {
	s.Helper()
	v, err := d.Unmarshal(of)
	require.NoError(s, err)
	var values map[string]tftypes.Value
	require.NoError(s, v.As(&values))
	all := map[string]string{}
	for name, value := range values {
		if text := ""; value.Type().Is(tftypes.String) && !value.IsNull() {
			require.NoError(s, value.As(&text))
			all[name] = text
		}
	}
	return all
}

// identityType returns the type of the identity of a resource.
func (s server) identityType(name string) tftypes.Type {
	s.Helper()
	all, err := s.GetResourceIdentitySchemas(s.Context(), &tfprotov6.GetResourceIdentitySchemasRequest{})
	require.NoError(s, err)
	require.Contains(s, all.IdentitySchemas, name)
	return all.IdentitySchemas[name].ValueType()
}

// list returns the identities and the resources that terraform query finds.
func (s server) list(name string, limit int64) (identities, resources []map[string]string) {
	s.Helper()
	require.Contains(s, s.schemas.ListResourceSchemas, name)
	of := s.schemas.ListResourceSchemas[name].ValueType()
	stream, err := s.ProviderServer.(tfprotov6.ListResourceServer).ListResource(s.Context(),
		&tfprotov6.ListResourceRequest{
			TypeName: name, Config: s.dynamic(of, tftypes.NewValue(of, nulls(of.(tftypes.Object)))),
			IncludeResource: true, Limit: limit,
		})
	require.NoError(s, err)
	for result := range stream.Results {
		s.good(result.Diagnostics)
		require.NotEmpty(s, result.DisplayName)
		identities = append(identities, s.texts(s.identityType(name), result.Identity.IdentityData))
		resources = append(resources, s.texts(s.schemas.ResourceSchemas[name].ValueType(), result.Resource))
	}
	return identities, resources
}

// importBy imports a resource by its identity and reads it, as Terraform does.
func (s server) importBy(name string, identity map[string]string) map[string]string {
	s.Helper()
	of := s.identityType(name).(tftypes.Object)
	values := nulls(of)
	for attribute, value := range identity {
		values[attribute] = tftypes.NewValue(tftypes.String, value)
	}
	imported, err := s.ImportResourceState(s.Context(), &tfprotov6.ImportResourceStateRequest{
		TypeName: name,
		Identity: &tfprotov6.ResourceIdentityData{IdentityData: s.dynamic(of, tftypes.NewValue(of, values))},
	})
	require.NoError(s, err)
	s.good(imported.Diagnostics)
	require.Len(s, imported.ImportedResources, 1)
	one := imported.ImportedResources[0]
	read, err := s.ReadResource(s.Context(), &tfprotov6.ReadResourceRequest{
		TypeName: name, CurrentState: one.State, CurrentIdentity: one.Identity, Private: one.Private,
	})
	require.NoError(s, err)
	s.good(read.Diagnostics)
	require.Equal(s, identity, s.texts(of, read.NewIdentity.IdentityData))
	return s.texts(s.schemas.ResourceSchemas[name].ValueType(), read.NewState)
}

// What terraform query finds is complete, stops at the limit, and is imported by the identity that it shows.
func TestQueryAndImportByIdentity(t *testing.T) {
	s := newServer(t)
	c := s.administrator()
	for _, name := range []string{"one.query.example", "two.query.example"} {
		_, err := c.Federation().CreateRelationship(t.Context(), &ententev1.CreateRelationshipRequest{
			Relationship: &ententev1.Relationship{
				TrustDomain: name, Url: "https://127.0.0.1:1/", EndpointSpiffeId: "spiffe://" + name + "/endpoint",
				Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
			},
			BootstrapBundle: []byte(document(t, name)),
		})
		require.NoError(t, err)
	}
	_, err := c.Access().GrantRole(t.Context(), &ententev1.GrantRoleRequest{Grant: &ententev1.Grant{
		Role: ententev1.Role_ROLE_ISSUER, SpiffeId: "spiffe://dev.example.org/query", TrustDomain: "dev.example.org",
	}})
	require.NoError(t, err)
	_, err = c.Routing().RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{Instance: &ententev1.Instance{
		Service: "query", Address: "10.7.0.9:443", SpiffeId: "spiffe://dev.example.org/query",
		Locality: &ententev1.Locality{Region: "eu", Zone: "a"},
	}})
	require.NoError(t, err)
	grant := map[string]string{
		"role": "issuer", "spiffe_id": "spiffe://dev.example.org/query", "trust_domain": "dev.example.org",
	}
	for name, wanted := range map[string][]map[string]string{
		"entente_federation_relationship": {
			{"trust_domain": "one.query.example"}, {"trust_domain": "two.query.example"},
		},
		"entente_access_grant": {grant},
		"entente_service":      {{"name": "query"}},
	} {
		identities, resources := s.list(name, 0)
		for _, identity := range wanted {
			require.Contains(t, identities, identity, name)
			is := s.importBy(name, identity)
			require.Contains(t, resources, is, "what is listed is what is imported")
		}
		first, _ := s.list(name, 1)
		require.Equal(t, identities[:1], first, name)
	}
}
