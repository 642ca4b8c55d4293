package xds_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// requireValid holds a resource, and what is packed into it, to the constraints that Envoy's API declares: Envoy
// refuses an update that breaks one.
func requireValid(t testing.TB, packed *anypb.Any) {
	t.Helper()
	m, err := packed.UnmarshalNew()
	require.NoError(t, err, "a type that Envoy's API does not have")
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		require.NoError(t, v.ValidateAll())
	}
	require.NoError(t, protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		inner, ok := p.Index(-1).Value.Interface().(protoreflect.Message)
		if !ok {
			return nil
		}
		if a, ok := inner.Interface().(*anypb.Any); ok {
			requireValid(t, a)
		}
		return nil
	}))
}
