package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"slices"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// sign writes the signature of a file beside it, as 'cosign sign-blob' does with a key and without a transparency log:
//
//	cosign verify-blob --key cosign.pub --signature SHA256SUMS.sig --insecure-ignore-tlog SHA256SUMS
func sign(keyFile, password, file string) error {
	key, err := readKey(keyFile, password)
	if err != nil {
		return fmt.Errorf("read the key %s: %w", keyFile, err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(content)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return err
	}
	return os.WriteFile(file+".sig", []byte(base64.StdEncoding.EncodeToString(signature)), 0o644)
}

// keyTypes are the types of cosign's private keys, the present one and the one of earlier versions.
var keyTypes = []string{"ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"}

// readKey reads a private key as 'cosign generate-key-pair' writes it.
func readKey(file, password string) (*ecdsa.PrivateKey, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil || !slices.Contains(keyTypes, block.Type) {
		return nil, fmt.Errorf("it is no private key of cosign: 'cosign generate-key-pair' makes one")
	}
	der, err := encrypted.Decrypt(block.Bytes, []byte(password))
	if err != nil {
		return nil, fmt.Errorf("COSIGN_PASSWORD does not open it: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T, not an ECDSA key", parsed)
	}
	return key, nil
}
