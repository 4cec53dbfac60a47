-- Grants learned container ports; tokens from before may use all of them, as with every other kind.
UPDATE tokens SET access = json_set(access, '$.container_ports', json('null'));
