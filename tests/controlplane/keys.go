package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

// Writes the key that signs the tokens of service accounts to the file that the argument names.
func keys() int {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: keys FILE")
		return 2
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err == nil {
		block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
		err = os.WriteFile(os.Args[1], pem.EncodeToMemory(block), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keys:", err)
		return 1
	}
	return 0
}
