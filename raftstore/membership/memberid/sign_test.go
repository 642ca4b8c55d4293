package memberid

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSignatureOfAnIdentityKey(t *testing.T) {
	identity, err := LoadIdentity(filepath.Join(t.TempDir(), "identity.pem"))
	require.NoError(t, err)
	other, err := LoadIdentity(filepath.Join(t.TempDir(), "identity.pem"))
	require.NoError(t, err)
	signature, err := identity.Sign("accept", []byte("session"), []byte("content"))
	require.NoError(t, err)
	own := identity.Certificate.Certificate[0]
	digest, err := VerifyIdentity(own, "accept", signature, []byte("session"), []byte("content"))
	require.NoError(t, err)
	require.Equal(t, identity.Digest, digest)

	for name, verify := range map[string]func() (Digest, error){
		"another session": func() (Digest, error) {
			return VerifyIdentity(own, "accept", signature, []byte("sessioN"), []byte("content"))
		},
		"another purpose": func() (Digest, error) {
			return VerifyIdentity(own, "consent", signature, []byte("session"), []byte("content"))
		},
		"parts cut elsewhere": func() (Digest, error) {
			return VerifyIdentity(own, "accept", signature, []byte("sessionc"), []byte("ontent"))
		},
		"another key": func() (Digest, error) {
			return VerifyIdentity(
				other.Certificate.Certificate[0], "accept", signature, []byte("session"), []byte("content"))
		},
		"no key": func() (Digest, error) { return VerifyIdentity(nil, "accept", signature) },
		"no signature": func() (Digest, error) {
			return VerifyIdentity(own, "accept", nil, []byte("session"), []byte("content"))
		},
	} {
		_, err := verify()
		require.ErrorIs(t, err, ErrSignature, name)
	}
}
