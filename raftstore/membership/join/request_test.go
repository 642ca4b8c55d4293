package join

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

type request = ententev1.JoinRequest

func joinRequest(t testing.TB) *ententev1.JoinRequest {
	t.Helper()
	identity, err := memberid.LoadIdentity(filepath.Join(t.TempDir(), "identity.pem"))
	require.NoError(t, err)
	return &ententev1.JoinRequest{
		Id: "eu-2", Region: "eu-west-1", Zone: "eu-west-1b", Address: "eu-2.example.org:7440", Version: "1.0",
		CommandVersion:      1,
		IdentityCertificate: identity.Certificate.Certificate[0], TokenId: strings.Repeat("ab", 16),
		TokenSecret: make([]byte, 32),
		ClusterName: "eu", HomeTrustDomain: "eu.example.org",
	}
}

func TestCheckRequest(t *testing.T) {
	_, err := CheckRequest(joinRequest(t))
	require.NoError(t, err)
	for text, change := range map[string]func(*request){
		"member id":                             func(r *request) { r.Id = "../eu" },
		"is not host:port":                      func(r *request) { r.Address = "eu-2" },
		"zone has 256 bytes":                    func(r *request) { r.Zone = strings.Repeat("z", 256) },
		"has a character that cannot be shown":  func(r *request) { r.Version = "1.0\x1b[2J" },
		"the token's id or secret is malformed": func(r *request) { r.TokenId = "" },
		"identity certificate of 0 bytes":       func(r *request) { r.IdentityCertificate = nil },
		"identity certificate of 4097 bytes":    func(r *request) { r.IdentityCertificate = make([]byte, 4097) },
		"identity certificate cannot be read": func(r *request) {
			r.IdentityCertificate = r.IdentityCertificate[1:]
		},
		"identity certificate is not signed by its": func(r *request) {
			r.IdentityCertificate[len(r.IdentityCertificate)-1] ^= 1
		},
	} {
		r := joinRequest(t)
		change(r)
		_, err := CheckRequest(r)
		require.ErrorContains(t, err, text)
	}
}

// Every request is refused, or can be stored and its address dialed.
func FuzzCheckRequest(f *testing.F) {
	seed, err := proto.Marshal(joinRequest(f))
	require.NoError(f, err)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r ententev1.JoinRequest
		if proto.Unmarshal(raw, &r) != nil {
			return
		}
		if _, err := CheckRequest(&r); err != nil {
			return
		}
		require.NoError(t, memberid.CheckID(r.GetId()))
		require.NoError(t, memberid.CheckAddress(r.GetAddress()))
		require.NotContains(t, r.GetId()+r.GetAddress(), "|")
	})
}
