// Package vault calls the API of HashiCorp Vault and OpenBao: it logs in, keeps the login alive, and bounds each call
// in size and time.
//
//   - A login is renewed at two thirds of its life. It is replaced when it cannot be renewed further, and when Vault
//     answers 403. Secrets, token files, client certificates and the CA file are read again at each use.
//   - A failure that may pass is retried, with growing and random pauses, and not before the time that Vault names.
//   - Each failure has a name ([Reason]) and a metric.
//
// The package never keeps a secret longer than a login needs it, never reads Vault's settings from the environment, and
// follows one redirect of a standby node, under the same rules as the first address. Start reading at call.go; [Config]
// has the settings.
package vault
