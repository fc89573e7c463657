"""The Spiking Recurrent Cell in Lava. Lava executes every module beside a process's: these are its own."""
