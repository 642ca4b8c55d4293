package access_test

import (
	"fmt"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

// elsewhere lists the services that are served under other protocols.
var elsewhere = map[protoreflect.FullName]bool{
	"entente.v1.StoreService":       true,
	"entente.v1.MemberService":      true,
	"entente.v1.SigningService":     true,
	"entente.v1.JoinService":        true,
	"entente.v1.InvitationService":  true,
	"entente.v1.AttestationService": true,
}

// methods returns all methods of the API and of xDS, by full gRPC method name.
func methods(t *testing.T) map[string]protoreflect.MethodDescriptor {
	t.Helper()
	all := make(map[string]protoreflect.MethodDescriptor)
	add := func(service protoreflect.ServiceDescriptor) {
		for m := range service.Methods().Len() {
			method := service.Methods().Get(m)
			all[fmt.Sprintf("/%s/%s", service.FullName(), method.Name())] = method
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("entente.v1", func(f protoreflect.FileDescriptor) bool {
		for s := range f.Services().Len() {
			add(f.Services().Get(s))
		}
		return true
	})
	add(discovery.File_envoy_service_discovery_v3_ads_proto.Services().ByName("AggregatedDiscoveryService"))
	require.NotEmpty(t, all)
	return all
}

func TestEveryMethodHasARule(t *testing.T) {
	all := methods(t)
	for name, method := range all {
		_, ruled := access.Rules()[name]
		if elsewhere[method.Parent().FullName()] {
			require.False(t, ruled, "%s is for members or joiners, and must not be reachable from the API", name)
		} else {
			require.True(t, ruled, "%s has no rule, so no caller is admitted: write one in rules.go", name)
		}
	}
	for name := range access.Rules() {
		require.Contains(t, all, name, "a rule for a method that does not exist")
	}
}

func TestRulesAreWhole(t *testing.T) {
	all := methods(t)
	for name, rule := range access.Rules() {
		require.NotEmpty(t, rule.Roles, name)
		require.Contains(t, rule.Roles, grant.Admin, "%s: an administrator may do everything", name)
		require.NotZero(t, rule.Reach, name)
		require.NotZero(t, rule.Audit, name)
		request := message(t, all[name].Input())
		if rule.Target != nil {
			require.NotPanics(t, func() { rule.Target(request) }, name)
		}
		if rule.Reach == access.Domain {
			require.NotNil(t, rule.Target, "%s: which domain?", name)
		}
		spansDomains := all[name].Output().Fields().ByName("trust_domain") == nil &&
			(rule.Reach == access.Listing || rule.Reach == access.Bundles)
		require.Equal(t, spansDomains, rule.Prune != nil, "%s: an answer that spans domains is cut down, and no other",
			name)
	}
}

// The target of a rule covers every field of a request that names a trust domain or a SPIFFE ID, including fields that
// the API gains later.
func TestRulesReadWhatRequestsName(t *testing.T) {
	all := methods(t)
	for name, rule := range access.Rules() {
		if rule.Reach != access.Domain && rule.Reach != access.Listing && rule.Reach != access.Bundles {
			continue
		}
		request := message(t, all[name].Input())
		named := fill(request.ProtoReflect())
		if len(named) == 0 {
			continue
		}
		target := rule.Target(request)
		read := target.TrustDomains
		if target.SPIFFEID != "" {
			read = append(read, target.SPIFFEID)
		}
		require.NotEmpty(t, read, name)
		require.Subset(t, named, read, name)
		require.NotEmpty(t, target.Object, name)
	}
}

// fill sets the fields that name trust domains and SPIFFE IDs, and returns the values.
func fill(m protoreflect.Message) []string {
	var named []string
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.Kind() == protoreflect.MessageKind && !f.IsList() && f.Message().ParentFile().Package() == "entente.v1":
			named = append(named, fill(m.Mutable(f).Message())...)
		case f.Name() == "trust_domain" || f.Name() == "spiffe_id":
			value := "spiffe://" + string(f.Name())
			m.Set(f, protoreflect.ValueOfString(value))
			named = append(named, value)
		case f.Name() == "trust_domains":
			m.Mutable(f).List().Append(protoreflect.ValueOfString("spiffe://trust_domains"))
			named = append(named, "spiffe://trust_domains")
		}
	}
	return named
}

func message(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	require.NoError(t, err)
	return kind.New().Interface()
}

func TestPruneLeavesTheAnswerAlone(t *testing.T) {
	answer := &v1.WatchBundlesResponse{
		Revision: 7,
		Changed:  []*v1.Bundle{{TrustDomain: "a.test"}, {TrustDomain: "b.test"}},
		Deleted:  []string{"c.test", "b.test"},
	}
	whole := proto.Clone(answer)
	got := access.Rules()[v1.BundleService_WatchBundles_FullMethodName].Prune(answer,
		func(td string) bool { return td != "b.test" })
	want := &v1.WatchBundlesResponse{Revision: 7, Changed: []*v1.Bundle{{TrustDomain: "a.test"}},
		Deleted: []string{"c.test"}}
	require.True(t, proto.Equal(want, got), "%v", got)
	require.True(t, proto.Equal(whole, answer), "%v", answer)
}
